"""Whether clean margins grow with depth in a model: what ``benchmarks/norms.py`` counted, for claims."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from hierbench.errors import InputError
from hierbench.paths import data_dir
from hierbench.reporting.claims.evidence import Pair

MOST = 10**7
"""More images than any record counts."""


def read_margins(protocol: str, path: Path | None = None) -> dict[tuple[str, str], Pair]:
    """Return by (model, data set) of a protocol the images whose margin grew (first) and shrank (second).

    ``path``: the script's record, by default the one that hierbench brings along. An image's clean margin at the leaves
    is against its own at the coarsest depth, so that the pair's exact McNemar test is the sign test. A record that is
    not there, or that the script did not write, raises ``InputError``.
    """
    path = path or data_dir() / "leaderboard" / "measurements" / "norms.json"
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
        found = {}
        for row in rows:
            if row["protocol"] == protocol:
                model, _, dataset = str(row["cell"]).partition("/")
                counted = row["margin_growth"]
                found[model, dataset] = _pair(*(counted[key] for key in ("n", "grew", "shrank")))
        return found
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a record of benchmarks/norms.py ({type(error).__name__}: {error})") from None


def _pair(count: int, grew: int, shrank: int) -> Pair:
    if any(type(number) is not int for number in (count, grew, shrank)) or not 0 < count <= MOST:
        raise ValueError(f"{count} is no number of images")
    if min(grew, shrank) < 0 or grew + shrank > count:
        raise ValueError(f"{grew} that grew and {shrank} that shrank are not of {count}")
    place = np.arange(count)
    return Pair(place < grew, place >= count - shrank)
