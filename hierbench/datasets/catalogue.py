"""The data sets hierbench knows."""

from __future__ import annotations

from hierbench.datasets.spec import DatasetSpec
from hierbench.errors import InputError
from hierbench.registry import Registry


def _fill(registry: Registry[DatasetSpec]) -> None:
    from hierbench.datasets import entries_fine, entries_general, entries_imagenet, entries_small

    for part in (entries_small, entries_general, entries_fine, entries_imagenet):
        part.fill(registry)


DATASETS: Registry[DatasetSpec] = Registry("dataset", fill=_fill)


def get_spec(name: str) -> DatasetSpec:
    """Return the specification of a data set, by name."""
    return DATASETS.get(name)


def check_split(spec: DatasetSpec, split: str) -> str:
    """Return ``split`` if the data set has it (``heldout`` stands beside ``train``), else raise ``InputError``."""
    known = list(spec.splits) + (["heldout"] if "train" in spec.splits else [])
    if split not in known:
        raise InputError(f"--split: dataset {spec.name} has no split {split!r}; it has {', '.join(known)}")
    return split
