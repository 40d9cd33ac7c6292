"""Forward and backward passes of one batch of a search, in fewer images at a time when memory runs out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from hierbench.attacks.engine.batching import Cost, Forward, checked_forward, forward_rows, smaller_part
from hierbench.attacks.engine.precision import search_arithmetic
from hierbench.attacks.objectives.base import Objective
from hierbench.attacks.precision_names import SearchPrecision
from hierbench.models.layout import NodeLayout


class Point(NamedTuple):
    """What a batch of images gave."""

    logits: Tensor
    """[B, N], without a graph."""
    loss: Tensor
    """[B] float32."""
    gradient: Tensor | None
    """[B, c, h, w] of the summed loss; None where none was asked for."""


class _Job(NamedTuple):
    """What is asked of a batch."""

    forward: Forward
    objective: Objective
    gradient: bool
    eot: int


@dataclass
class Passes:
    """Evaluates an objective at images; ``part`` is the most images that went through at once.

    An allocation that fails halves ``part`` for the rest of the search. The parts are the batch's own rows in order,
    so a sample's draws and steps stay what they were; only a kernel's rounding may differ.
    """

    forward: Forward
    layout: NodeLayout
    cost: Cost
    part: int
    precision: SearchPrecision = "fp32"
    """Of forward and backward; what breaks a verdict is looked at again by ``exact``."""
    search_forward: Forward | None = None
    """A quicker form of ``forward`` for all passes but ``exact``'s, the same up to rounding; None takes ``forward``."""
    halvings: int = field(default=0)

    @property
    def rough(self) -> bool:
        """Whether what a pass calls broken has to be looked at again."""
        return self.precision != "fp32" or self.search_forward is not None

    def at(
        self,
        query: Tensor,
        objective: Objective,
        aims: Tensor,
        *,
        gradient: bool,
        eot: int = 1,
        forward: Forward | None = None,
    ) -> Point:
        """Return logits, loss and, if asked for, gradient at images [B, c, h, w]; ``eot`` draws are averaged."""
        job = _Job(forward or self.search_forward or self.forward, objective, gradient, eot)
        while True:
            try:
                return self._joined(query, aims, job)
            except (torch.OutOfMemoryError, RuntimeError) as error:
                self.part = smaller_part(error, min(self.part, len(query)))
            self.halvings += 1

    def exact(self, query: Tensor, *, forward: Forward | None = None) -> Tensor:
        """Return the float32 logits [B, N] of images that a coarser pass has called broken."""
        size = self.part
        return forward_rows(forward or self.forward, query, batch_size=size, device=query.device, cost=self.cost)

    def _joined(self, query: Tensor, aims: Tensor, job: _Job) -> Point:
        if len(query) <= self.part:
            return self._averaged(query, aims, job)
        starts = range(0, len(query), self.part)
        parts = [
            self._averaged(query[start : start + self.part], aims[start : start + self.part], job) for start in starts
        ]
        gradients = [part.gradient for part in parts if part.gradient is not None]
        return Point(
            torch.cat([part.logits for part in parts]),
            torch.cat([part.loss for part in parts]),
            torch.cat(gradients) if gradients else None,
        )

    def _averaged(self, query: Tensor, aims: Tensor, job: _Job) -> Point:
        point = self._once(query, aims, job)
        if not job.gradient or job.eot == 1:
            return point
        total, loss = point.gradient, point.loss
        for _ in range(job.eot - 1):
            point = self._once(query, aims, job)
            assert total is not None and point.gradient is not None
            total, loss = total + point.gradient, loss + point.loss
        assert total is not None
        return Point(point.logits, loss / job.eot, total / job.eot)

    def _once(self, query: Tensor, aims: Tensor, job: _Job) -> Point:
        query = query.detach().requires_grad_(job.gradient)
        with torch.set_grad_enabled(job.gradient), search_arithmetic(query.device, self.precision):
            logits = checked_forward(lambda pixels: job.forward(pixels).float(), query)
            loss = job.objective.loss(logits, aims, self.layout)
            self.cost.forwards += len(query)
            found = None
            if job.gradient:
                (found,) = torch.autograd.grad(loss.sum(), query)
                self.cost.backwards += len(query)
        return Point(logits.detach(), loss.detach().float(), found)
