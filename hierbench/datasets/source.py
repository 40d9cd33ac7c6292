"""What a layout says of a split before any image is decoded, and the checks all layouts share."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hierbench.datasets.blobs import Blobs
from hierbench.datasets.labels import find_class
from hierbench.datasets.spec import DatasetSpec, SplitSource
from hierbench.errors import InputError


@dataclass(frozen=True)
class IndexedSplit:
    """The rows of a split: ids, labels [n], and where their encoded images are."""

    revision: str
    ids: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    blobs: Blobs


@dataclass(frozen=True)
class Located:
    """Files of one split in one layout."""

    layout: str
    """Parquet, image folders, WebDataset tars, CIFAR binaries."""
    folder: Path
    files: tuple[Path, ...]

    def __str__(self) -> str:
        return f"{self.layout} in {self.folder}"


SPLIT_ALIASES = {"validation": ("validation", "valid", "val"), "valid": ("valid", "validation", "val")}
"""Other names a split's folder goes by."""


def split_names(split: str, source: SplitSource) -> tuple[str, ...]:
    """Return the folder names a split may have, ours first, then the Hub's."""
    names = [split, source.prefix]
    return tuple(dict.fromkeys(alias for name in names for alias in SPLIT_ALIASES.get(name, (name,))))


def row_ids(split: str, count: int) -> tuple[str, ...]:
    """Return the sample ids of a source whose rows are numbered.

    >>> row_ids("test", 2)
    ('test/000000', 'test/000001')
    """
    return tuple(f"{split}/{row:06d}" for row in range(count))


def check_labels(values: Sequence[object], spec: DatasetSpec, *, where: str) -> npt.NDArray[np.int64]:
    """Return labels as int64 [n] from class ids, numbers or truth values; one that is none is an ``InputError``."""
    if values and isinstance(values[0], str):
        meant = {v: find_class(v, spec) if isinstance(v, str) else None for v in dict.fromkeys(values)}
        for value, label in meant.items():
            if label is None:
                raise InputError(f"{where} holds {value!r}, no class of {spec.name}")
        return np.array([meant[v] for v in values], dtype=np.int64)
    bad = next((v for v in values if not isinstance(v, int) or not 0 <= v < len(spec.class_ids)), _FINE)
    if bad is not _FINE:
        raise InputError(f"{where} holds {bad!r}; labels are 0 to {len(spec.class_ids) - 1}")
    return np.array(values, dtype=np.int64)


_FINE = object()


def count_notes(
    spec: DatasetSpec, split: str, source: SplitSource, count: int, *, where: str, local: bool
) -> tuple[str, ...]:
    """Check a split's size against the complete one; return a note where a local copy is a part of it.

    More rows than the complete split has, or any difference on the Hub, is an ``InputError``: it is another version.
    """
    if count == 0:
        raise InputError(f"{where}: no sample of {spec.name} {split}")
    if source.rows is None or count == source.rows or not source.exact:
        return ()
    if count > source.rows or not local:
        raise InputError(
            f"{where}: {count} samples; {spec.name} {split} has {source.rows}, so this is another version of it"
        )
    return (f"{split}: {count} of the {source.rows} samples, a part of the split",)


_SHARD = re.compile(r"-(\d{5})-of-(\d{5})(?:-[0-9a-f]+)?\.parquet$")


def check_shards(files: Sequence[Path], *, where: str) -> None:
    """Refuse a set of ``-00001-of-00004`` files in which one is missing: its classes would be missing too."""
    named = [(int(m[1]), int(m[2])) for f in files if (m := _SHARD.search(f.name))]
    for total in {total for _, total in named}:
        there = {number for number, of in named if of == total}
        missing = sorted(set(range(total)) - there)
        if missing:
            raise InputError(f"{where}: file {missing[0]:05d} of {total:05d} is missing")
