"""Square: random search by squares of pixels, from logits alone (Andriushchenko et al., arXiv 1912.00049)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hierbench.attacks.optimisers.base import Rows, Visit
from hierbench.attacks.optimisers.noise import RowNoise
from hierbench.attacks.optimisers.square_l2 import bumps, moved_mass
from hierbench.attacks.threat import ThreatModel, per_image
from hierbench.errors import InputError

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Queries after which the share of changed pixels halves, of a schedule of 10,000."""
_STARTING = 1 << 20
"""Number of the draw that makes the first point; the draws below it belong to the queries."""
_BLOCK = 64


@dataclass(frozen=True)
class Square:
    """Black-box random search: change a square of pixels, keep the change if the loss rose.

    Args:
        steps: queries after the first.
        share: share of the pixels changed at the start; it halves at fixed numbers of queries.
        rescale: stretch the schedule of 10,000 queries over ``steps``. The standard AutoAttack does not.
    """

    steps: int = 5000
    share: float = 0.8
    rescale: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.steps < _STARTING:
            raise InputError(f"queries {self.steps} is out of range: 1 to {_STARTING - 1}")
        if not 0 < self.share <= 1:
            raise InputError(f"share {self.share} is no share of the pixels: above 0, at most 1")

    @property
    def uses_gradient(self) -> bool:
        """Whether ``advance`` reads the gradient."""
        return False

    def start(self, clean: Tensor, threat: ThreatModel, noise: RowNoise) -> tuple[Tensor, Rows]:
        """Return vertical stripes on the linf ball, or a grid of bumps on the l2 sphere, and fresh state."""
        rows, channels, _, width = clean.shape
        if threat.norm == "linf":
            signs = noise.signs(channels * width, draw=_STARTING).to(clean).view(rows, channels, 1, width)
            query = threat.project(clean + threat.radius * signs, clean)
        else:
            query = bumps(clean, threat, noise.signs(channels * 25, draw=_STARTING).to(clean))
        state: Rows = {
            "best": clean.clone(),
            "best_loss": torch.full((rows,), -torch.inf, device=clean.device),
            "draws": self._draws(noise, np.zeros(rows, dtype=np.int64), channels).to(clean.device),
        }
        return query, state

    def advance(self, visit: Visit, state: Rows) -> tuple[Tensor, Rows]:
        """Keep the query where it is better than all before, and return the next one."""
        state = dict(state)
        query, clean, threat, step = visit.query, visit.clean, visit.threat, visit.step
        better = (visit.loss > state["best_loss"]) | (step == 0)
        state["best"] = torch.where(per_image(better), query, state["best"])
        state["best_loss"] = torch.where(better, visit.loss, state["best_loss"])
        within = step % _BLOCK
        at = step.cpu().numpy()
        renew = np.flatnonzero((at % _BLOCK == 0) & (at > 0))
        if len(renew):
            blocks = at[renew] // _BLOCK
            fresh = self._draws(visit.noise.take(renew.tolist()), blocks, query.shape[1])
            state["draws"] = state["draws"].index_copy(
                0, torch.from_numpy(renew).to(query.device), fresh.to(query.device)
            )
        draw = state["draws"][torch.arange(len(query), device=query.device), within]
        side = self._sides(step, query.shape[2:], threat)
        if threat.norm == "linf":
            window = _windows(side, draw[:, 0], draw[:, 1], query.shape[2:])
            signs = draw[:, 5:].sign()[:, :, None, None]
            jump = torch.where(window[:, None], 2 * threat.radius * signs, 0.0)
            return threat.project(state["best"] + jump, clean), state
        return moved_mass(state["best"], clean, threat, side, draw), state

    def _draws(self, noise: RowNoise, blocks: NDArray[np.int64], channels: int) -> Tensor:
        """Return float32 [rows, 64, 5 + channels] in (-1, 1): each query's two corners, a turn, a sign a channel."""
        return noise.blocks(blocks.tolist(), rows=_BLOCK, columns=5 + channels)

    def _sides(self, step: Tensor, size: torch.Size, threat: ThreatModel) -> Tensor:
        """Return long [B]: the side of each row's square at its step."""
        at = (step.double() / self.steps * 10_000).long() if self.rescale else step
        halvings = torch.bucketize(at, torch.tensor(HALVINGS, device=step.device))
        share = self.share * 0.5 ** halvings.double()
        height, width = size
        side = (share * (height * width)).sqrt().round().long()
        if threat.norm == "linf":
            return side.clamp(1, min(height, width) - 1)
        side = side.clamp_min(3)
        return (side + (side % 2 == 0)).clamp_max(min(height, width) - 1)


def _windows(side: Tensor, down: Tensor, right: Tensor, size: torch.Size) -> Tensor:
    """Return bool [B, h, w]: a square of ``side`` [B] whose corner is where two draws in (-1, 1) [B] put it."""

    def inside(length: int, draw: Tensor) -> Tensor:
        first = ((draw * 0.5 + 0.5) * (length - side + 1)).long()
        place = torch.arange(length, device=side.device)
        return (place >= first[:, None]) & (place < (first + side)[:, None])

    return inside(size[0], down)[:, :, None] & inside(size[1], right)[:, None, :]
