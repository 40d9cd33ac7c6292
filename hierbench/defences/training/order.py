"""Which images a step sees, and its random numbers: functions of seed and step alone, so that resuming is exact."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch


def stream_key(seed: int, purpose: str, number: int) -> int:
    """Return a 63-bit key of one random stream.

    >>> stream_key(0, "order", 1) == stream_key(0, "order", 1) != stream_key(0, "order", 2)
    True
    """
    digest = hashlib.blake2b(f"{seed}|{purpose}|{number}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def numpy_stream(seed: int, purpose: str, number: int) -> np.random.Generator:
    """Return NumPy's generator of one stream."""
    return np.random.Generator(np.random.Philox(key=stream_key(seed, purpose, number)))


def torch_stream(seed: int, purpose: str, number: int, *, device: torch.device | str) -> torch.Generator:
    """Return torch's generator of one stream, on a device."""
    return torch.Generator(device=device).manual_seed(stream_key(seed, purpose, number))


@dataclass(frozen=True)
class BatchPlan:
    """Batches of a whole run: a new permutation every epoch, the incomplete last batch of an epoch left out."""

    images: int
    batch_size: int
    steps: int
    seed: int

    @property
    def per_epoch(self) -> int:
        """Steps in one pass over the images."""
        return max(1, self.images // self.batch_size)

    def epoch(self, step: int) -> int:
        """The epoch a step belongs to, from 0."""
        return step // self.per_epoch

    def permutation(self, epoch: int) -> npt.NDArray[np.int64]:
        """The order of one epoch [images]."""
        return numpy_stream(self.seed, "order", epoch).permutation(self.images)

    def batch(self, step: int, permutation: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Positions of one step's images, given its epoch's permutation."""
        start = (step % self.per_epoch) * self.batch_size
        return permutation[start : start + self.batch_size]


def plan_batches(images: int, *, batch_size: int, epochs: float, steps: int | None, seed: int) -> BatchPlan:
    """Return the plan of a run; ``steps`` wins over ``epochs``; a batch is never larger than the data.

    >>> plan_batches(100, batch_size=32, epochs=2, steps=None, seed=0).steps
    6
    """
    size = min(batch_size, images)
    total = steps if steps is not None else max(1, math.ceil(epochs * max(1, images // size)))
    return BatchPlan(images=images, batch_size=size, steps=total, seed=seed)
