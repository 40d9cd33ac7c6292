"""Samples that a protocol leaves out of a split, by a committed list that says of each why."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache

from hierbench.errors import HierbenchError, InputError
from hierbench.paths import data_dir


@dataclass(frozen=True)
class Exclusion:
    """A named list of sample ids, by data set and split."""

    name: str
    reason: str
    """What the samples are, in a few words: ``near-duplicates of training images``."""
    samples: dict[str, frozenset[str]]
    """Ids by ``<data set>/<split>``."""

    def ids(self, dataset: str, split: str) -> frozenset[str]:
        """Return the ids left out of a split; none where the list says nothing of it."""
        return self.samples.get(f"{dataset}/{split}", frozenset())


@lru_cache(maxsize=8)
def load_exclusion(name: str) -> Exclusion:
    """Read ``leaderboard/left_out/<name>.json``; an unknown name or a list that cannot be read is said."""
    lists = {path.stem: path for path in sorted((data_dir() / "leaderboard" / "left_out").glob("*.json"))}
    if name not in lists:
        raise InputError(f"unknown list of left-out samples {name!r}: known are {', '.join(lists) or 'none'}")
    content = json.loads(lists[name].read_text(encoding="utf-8"))
    try:
        rows = {key: [entry["id"] for entry in entries] for key, entries in content["left_out"].items()}
        reason = str(content["reason"])
    except (KeyError, TypeError, AttributeError):
        raise HierbenchError(f"{lists[name]}: not a list of left-out samples") from None
    return Exclusion(name, reason, {key: frozenset(ids) for key, ids in rows.items()})
