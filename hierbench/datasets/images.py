"""A split: ids, labels, and pixels in memory or decoded when asked for."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from hierbench.datasets.lazy import LazyPixels
from hierbench.datasets.sampling import heldout_mask, list_hash, stratified_order
from hierbench.datasets.spec import DatasetSpec
from hierbench.errors import InputError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class ImageSet:
    """Samples of one split, in a fixed order.

    ``array`` holds the pixels at the data set's grid, uint8 [n, channels, height, width], in memory or, for large
    sets, decoded when they are asked for; ``labels`` is int64 [n].
    """

    spec: DatasetSpec
    split: str
    revision: str
    """Hash of the source, after a word for its layout: ``file:`` (Parquet), ``folder:``, ``wds:``, ``cifar-binary:``;
    ``hub:<id>@<commit>`` where it was streamed."""
    ids: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    array: npt.NDArray[np.uint8] | LazyPixels
    notes: tuple[str, ...] = ()
    """What a reader of a record has to know of the source, such as that it is a subset."""

    def __len__(self) -> int:
        return len(self.ids)

    def pixels(self, indices: Sequence[int] | npt.NDArray[np.int64]) -> torch.Tensor:
        """Return uint8 [len(indices), channels, height, width]."""
        import torch

        return torch.from_numpy(self.array[np.asarray(indices, dtype=np.int64)])

    def batches(self, size: int) -> Iterator[tuple[npt.NDArray[np.int64], torch.Tensor]]:
        """Yield places [b] and pixels [b, channels, height, width] in order; the last batch may be smaller."""
        for start in range(0, len(self), size):
            places = np.arange(start, min(start + size, len(self)))
            yield places, self.pixels(places)

    @cached_property
    def sample_hash(self) -> str:
        """Content hash of the sample list (ids and labels, in order)."""
        return list_hash(self.ids, self.labels)

    def take(self, indices: npt.NDArray[np.int64]) -> ImageSet:
        """Return the samples at ``indices``, in that order."""
        picked = tuple(self.ids[i] for i in indices.tolist())
        array = self.array.view(indices) if isinstance(self.array, LazyPixels) else self.array[indices]
        return replace(self, ids=picked, labels=self.labels[indices], array=array)

    def limited(self, limit: int | None) -> ImageSet:
        """Return the first ``limit`` samples of the class-stratified permutation (all of it for None)."""
        if limit is not None and limit < 1:
            raise InputError(f"--limit: {limit} is not a number of samples; give 1 or more")
        order = stratified_order(self.ids, self.labels)
        return self.take(order if limit is None else order[:limit])

    def of_classes(self, class_ids: Sequence[str]) -> ImageSet:
        """Return the samples whose class is among ``class_ids``; labels stay those of the whole data set."""
        wanted = np.isin(self.labels, [self.spec.class_ids.index(c) for c in class_ids])
        return self.take(np.flatnonzero(wanted))

    def leaving_out(self, ids: Collection[str], what: str) -> ImageSet:
        """Return the samples whose id is not among ``ids``; how many went, and ``what`` they were, becomes a note."""
        kept = np.array([sample not in ids for sample in self.ids], dtype=np.bool_)
        if kept.all():
            return self
        note = f"{int((~kept).sum())} of {len(self)} samples left out: {what}"
        return replace(self.take(np.flatnonzero(kept)), notes=(*self.notes, note))

    def without_heldout(self) -> ImageSet:
        """Return the nine tenths of a train split that training may see."""
        return self.take(np.flatnonzero(~heldout_mask(self.ids, self.labels)))

    def heldout(self) -> ImageSet:
        """Return the tenth of a train split kept for validation."""
        return replace(self.take(np.flatnonzero(heldout_mask(self.ids, self.labels))), split="heldout")
