"""A split as image folders: one folder a class."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hierbench.datasets.blobs import FileBlobs
from hierbench.datasets.digests import tree_digest
from hierbench.datasets.labels import find_class
from hierbench.datasets.source import IndexedSplit, Located, split_names
from hierbench.datasets.spec import DatasetSpec, SplitSource
from hierbench.errors import InputError

LAYOUT = "image folders"
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm"})


def find(folder: Path, spec: DatasetSpec, split: str, source: SplitSource) -> list[Located]:
    """Return ``<split>/`` below ``folder`` if it holds class folders.

    A data set with a single split may have its class folders in ``folder`` itself.
    """
    found = [
        Located(LAYOUT, folder / name, ())
        for name in split_names(split, source)
        if (folder / name).is_dir() and _has_classes(folder / name, spec)
    ]
    if not found and len(spec.splits) == 1 and _has_classes(folder, spec):
        found = [Located(LAYOUT, folder, ())]
    return found


def _has_classes(folder: Path, spec: DatasetSpec) -> bool:
    return any(_label(place.name, spec) is not None for place in folder.iterdir() if place.is_dir())


def _label(name: str, spec: DatasetSpec) -> int | None:
    """Return the label a folder name means; a bare number is the label itself (ImageNetV2's layout)."""
    found = find_class(name, spec)
    if found is None and name.isdecimal() and int(name) < len(spec.class_ids):
        return int(name)
    return found


def index(spec: DatasetSpec, split: str, folder: Path, cache: Path | None) -> IndexedSplit:
    """List the images; sample ids are ``<split>/<class id>/<file stem>``, in the order of labels, then of names.

    A folder that is no class, or two that are the same class, is an ``InputError`` naming it.
    """
    homes: dict[int, Path] = {}
    for place in sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")):
        label = _label(place.name, spec)
        if label is None and spec.other_classes:
            continue
        if label is None:
            raise InputError(f"{place}: no class of {spec.name} is called that, nor has that WordNet id")
        if label in homes:
            raise InputError(f"{homes[label]} and {place} are both class {spec.class_ids[label]!r} of {spec.name}")
        homes[label] = place
    paths: list[Path] = []
    labels: list[int] = []
    ids: list[str] = []
    for label, home in sorted(homes.items()):
        for path in sorted(p for p in home.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file()):
            paths.append(path)
            labels.append(label)
            ids.append(f"{split}/{spec.class_ids[label]}/{path.relative_to(home).with_suffix('').as_posix()}")
    if len(set(ids)) != len(ids):
        twice = next(i for i in ids if ids.count(i) > 1)
        raise InputError(f"{folder}: two files are sample {twice!r}: they differ in their suffix only")
    return IndexedSplit(
        revision=f"folder:sha256:{tree_digest(paths, folder, cache)}",
        ids=tuple(ids),
        labels=np.array(labels, dtype=np.int64),
        blobs=FileBlobs(paths),
    )
