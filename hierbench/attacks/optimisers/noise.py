"""Random draws that belong to a sample, not to a batch.

Every draw is a function of (seed, dataset, sample id, attack, restart) alone, so it does not depend on the batch
size, on the order of the samples, on the device, or on what was drawn before (METHODS.md 7.6). The bits come from
Philox4x64, a counter-based generator, keyed by a BLAKE2b hash; they are turned into numbers here, because NumPy
keeps its raw bits stable across versions and its distributions not.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hierbench.attacks.threat import Norm


@dataclass(frozen=True)
class NoiseSource:
    """Draws for the samples of one chunk.

    Args:
        seed: the run's seed.
        dataset: name of the dataset, with its pixel grid.
        attack: name of the attack and of its component.
        sample_ids: stable ids; position i is the sample's index in the chunk.
    """

    seed: int
    dataset: str
    attack: str
    sample_ids: tuple[str, ...]

    def bits(self, sample: int, restart: int, *, count: int, draw: int = 0) -> NDArray[np.uint64]:
        """Return ``count`` raw 64-bit words; ``draw`` numbers independent draws within one restart."""
        identity = [self.seed, self.dataset, self.sample_ids[sample], self.attack, restart]
        digest = hashlib.blake2b(json.dumps(identity).encode(), digest_size=16, person=b"hierbench").digest()
        key = np.array([int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")], dtype=np.uint64)
        counter = np.array([0, 0, 0, draw], dtype=np.uint64)
        return np.asarray(np.random.Philox(key=key, counter=counter).random_raw(count), dtype=np.uint64)

    def rows(self, samples: Sequence[int], restarts: Sequence[int]) -> RowNoise:
        """Return the draws of some (sample, restart) pairs, one row each."""
        return RowNoise(source=self, samples=tuple(samples), restarts=tuple(restarts))


@dataclass(frozen=True)
class RowNoise:
    """Draws for the rows of one batch, each from its own sample's stream."""

    source: NoiseSource
    samples: tuple[int, ...]
    restarts: tuple[int, ...]

    def in_unit_ball(self, shape: Sequence[int], *, norm: Norm, draw: int = 0) -> Tensor:
        """Return float32 [rows, *shape], uniform in the unit ball of the norm, on the CPU."""
        make = _unit_cube if norm == "linf" else _unit_sphere_volume
        size = math.prod(shape)
        rows = [
            make(self.source, sample, restart, size, draw)
            for sample, restart in zip(self.samples, self.restarts, strict=True)
        ]
        return torch.from_numpy(np.stack(rows)).view(len(rows), *shape)

    def signs(self, count: int, *, draw: int) -> Tensor:
        """Return float32 [rows, count] of -1 and 1, on the CPU."""
        rows = [
            np.unpackbits(self.source.bits(sample, restart, count=-(-count // 64), draw=draw).view(np.uint8))[:count]
            for sample, restart in zip(self.samples, self.restarts, strict=True)
        ]
        return torch.from_numpy(np.stack(rows).astype(np.float32) * 2 - 1)

    def blocks(self, blocks: Sequence[int], *, rows: int, columns: int) -> Tensor:
        """Return float32 [len(self), rows, columns], uniform in (-1, 1): block b of each row's own stream.

        Blocks let an optimiser of thousands of steps draw a few dozen steps at once.
        """
        made = [
            _unit_cube(self.source, sample, restart, rows * columns, block)
            for sample, restart, block in zip(self.samples, self.restarts, blocks, strict=True)
        ]
        return torch.from_numpy(np.stack(made)).view(len(made), rows, columns)

    def take(self, positions: Sequence[int]) -> RowNoise:
        """Return the draws of some of the rows."""
        return RowNoise(
            source=self.source,
            samples=tuple(self.samples[i] for i in positions),
            restarts=tuple(self.restarts[i] for i in positions),
        )


def _unit_cube(source: NoiseSource, sample: int, restart: int, size: int, draw: int) -> NDArray[np.float32]:
    """Uniform on the odd multiples of 2**-24 in (-1, 1): exact in float32, symmetric, never 0."""
    words = source.bits(sample, restart, count=(size + 1) // 2, draw=draw)
    halves = np.empty(2 * len(words), dtype=np.uint32)
    halves[0::2] = words & np.uint64(0xFFFFFFFF)
    halves[1::2] = words >> np.uint64(32)
    steps = (halves[:size] >> np.uint32(8)).astype(np.int32)
    return (2 * steps + (1 - (1 << 24))).astype(np.float32) * np.float32(2.0**-24)


def _unit_sphere_volume(source: NoiseSource, sample: int, restart: int, size: int, draw: int) -> NDArray[np.float32]:
    """Uniform in the l2 ball: a normal direction (Box-Muller) times the size-th root of a uniform length."""
    pairs = (size + 1) // 2
    words = source.bits(sample, restart, count=2 * pairs + 1, draw=draw)
    unit = ((words >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    radius = np.sqrt(-2.0 * np.log(unit[:pairs]))
    angle = 2.0 * np.pi * unit[pairs : 2 * pairs]
    normal = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:size]
    length = unit[-1] ** (1.0 / size)
    return np.asarray(normal * (length / np.linalg.norm(normal)), dtype=np.float32)
