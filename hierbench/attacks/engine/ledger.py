"""What a search has found so far, one row a sample of the chunk."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

NOT_FOUND = -1


class Ledger:
    """First successes, best images of the survivors, and most severe images of the samples searched in full.

    ``level`` is the coarsest depth that is broken so far, so a success is a level below the one on the clean image.
    Image tensors stay where the chunk's images are; everything else is small and on the host.
    """

    def __init__(
        self,
        images: Tensor,
        *,
        searched: NDArray[np.bool_],
        full_budget: NDArray[np.bool_],
        clean_level: NDArray[np.int64],
    ) -> None:
        n = len(images)
        self.searched = searched
        self.full_budget = full_budget & searched
        self.adversarial = images.clone()
        self.severity_images = images.clone() if self.full_budget.any() else None
        self.clean_level = clean_level
        self.level = clean_level.copy()
        self.stage = np.full(n, NOT_FOUND, dtype=np.int64)
        """Which stage made the image in ``adversarial``."""
        self.run = np.full(n, NOT_FOUND, dtype=np.int64)
        """Which of the stage's runs made it."""
        self.steps_used = np.zeros(n, dtype=np.int64)
        """Gradient steps, over all stages and runs, up to the last success."""
        self.nonfinite = np.zeros(n, dtype=np.bool_)
        self._margin = np.full(n, -np.inf)
        self._severity = np.full((n, 2), -np.inf)  # (breaks the verdict, margin), compared in this order

    @property
    def success(self) -> NDArray[np.bool_]:
        """Bool [n]: some depth broke that was right on the clean image."""
        return self.level < self.clean_level

    def todo(self, depth: int) -> NDArray[np.int64]:
        """Return the samples that a stage at ``depth`` works on, in order."""
        return np.flatnonzero(self.searched & ((self.level > depth) | self.full_budget))

    def survivors(self) -> int:
        """Return how many searched samples are not broken so far."""
        return int((self.searched & ~self.success).sum())

    def record_successes(
        self,
        samples: NDArray[np.int64],
        images: Tensor,
        *,
        levels: NDArray[np.int64],
        stage: int,
        runs: NDArray[np.int64],
    ) -> None:
        """Keep the image that breaks each of these samples at a coarser depth than any before."""
        self.level[samples] = levels
        self.stage[samples] = stage
        self.run[samples] = runs
        self._write(self.adversarial, samples, images)

    def offer(
        self,
        samples: NDArray[np.int64],
        images: Tensor,
        *,
        breaks: NDArray[np.bool_],
        margins: NDArray[np.float64],
        stage: int,
        runs: NDArray[np.int64],
    ) -> None:
        """Take the best image of each of these finished runs where it beats what is there.

        Runs are compared by the verdict's margin: losses of different objectives and targets are not comparable.
        """
        better = np.flatnonzero(~self.success[samples] & (margins > self._margin[samples]))
        if len(better):
            chosen = samples[better]
            self._margin[chosen] = margins[better]
            self.stage[chosen] = stage
            self.run[chosen] = runs[better]
            self._write(self.adversarial, chosen, images[torch.from_numpy(better).to(images.device)])
        if self.severity_images is None:
            return
        old = self._severity[samples]
        beats = (breaks > old[:, 0]) | ((breaks == old[:, 0]) & (margins > old[:, 1]))
        worse = np.flatnonzero(self.full_budget[samples] & beats)
        if len(worse):
            chosen = samples[worse]
            self._severity[chosen] = np.stack([breaks[worse].astype(np.float64), margins[worse]], axis=1)
            self._write(self.severity_images, chosen, images[torch.from_numpy(worse).to(images.device)])

    @staticmethod
    def _write(store: Tensor, samples: NDArray[np.int64] | Sequence[int], images: Tensor) -> None:
        store[torch.as_tensor(samples, device=store.device)] = images.to(store.device)
