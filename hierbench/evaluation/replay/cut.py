"""A sample of a run's stored images: the first rows of its list, small enough to be sent along with its record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypeVar

import numpy as np

from hierbench.errors import InputError
from hierbench.evaluation.replay.file import FORMAT, open_images
from hierbench.evaluation.replay.tensors import Column, write_tensors
from hierbench.evaluation.verdicts import Columns

Kind = TypeVar("Kind", bound=Columns)


def cut_images(source: Path, target: Path, *, rows: int) -> int:
    """Write the first ``rows`` samples of a file of 8-bit images as a file of its own; return how many there are.

    The result names the whole run's identity and verdicts, and says that it is a sample. Whole or not at all.
    ``InputError``: images kept as ``float``, a sample of a sample, ``rows`` below 1, or a damaged file.
    """
    stored = open_images(source)
    if rows < 1:
        raise InputError(f"--samples: {rows} is not a number of images; give 1 or more")
    if stored.form != "8bit":
        stored.refuse(f"kept as {stored.form}; a sample is cut from images kept as 8bit")
    if stored.heading.rows is not None:
        stored.refuse("it is a sample already")
    count = min(rows, len(stored.ids))
    listed = np.frombuffer(json.dumps(list(stored.ids[:count])).encode(), dtype=np.uint8)
    columns = [Column.of("ids", listed)]
    columns += [Column.of(n, stored.tensors.rows(n, 0, count)) for n in stored.tensors.shapes if n != "ids"]
    heading = stored.heading.model_copy(update={"rows": count})
    write_tensors(target, columns, {"format": FORMAT, "heading": heading.model_dump_json()})
    return count


def first_rows(verdicts: Kind, count: int) -> Kind:
    """Return the verdicts of the first ``count`` samples."""
    return verdicts.from_arrays({name: array[:count] for name, array in verdicts.to_arrays().items()})
