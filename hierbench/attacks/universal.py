"""Image-agnostic perturbations: one delta for every image, fitted on images that are not scored.

A delta belongs to a model, a data set, a depth with its scoring, a threat model, a seed and the settings of its fit.
It knows nothing of the images it is scored on, so it cannot depend on how they are cut into chunks. METHODS.md 2; the
idea is Moosavi-Dezfooli et al. (arXiv 1610.08401), the fit by ascent on mini-batches Shafahi et al. (arXiv 1811.11304).
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hierbench.attacks.engine.batching import Cost, Forward, forward_rows
from hierbench.attacks.engine.passes import Passes
from hierbench.attacks.engine.precision import exact_float32
from hierbench.attacks.objectives.base import Objective
from hierbench.attacks.optimisers.base import Rows, Visit
from hierbench.attacks.optimisers.noise import NoiseSource, RowNoise
from hierbench.attacks.optimisers.pgd import step_size
from hierbench.attacks.threat import ThreatModel, per_image
from hierbench.attacks.verdict import Criterion
from hierbench.errors import HierbenchError, InputError

LOOKS = 10
"""How often a fit counts what its delta breaks, to keep the best one."""


@dataclass(frozen=True, eq=False)
class FitImages:
    """Images that a universal perturbation is fitted on.

    Args:
        images: float32 [n, c, h, w] in [0, 1].
        labels: long [n], leaf indices.
        ids: n sample ids, none of which is scored.
        source: where they are from, in words.
    """

    images: Tensor
    labels: Tensor
    ids: tuple[str, ...]
    source: str = ""


class Fit(NamedTuple):
    """A fitted perturbation."""

    delta: Tensor
    """[c, h, w] in the ball, on the CPU."""
    clean_loss: float
    """Mean loss over the images it was fitted on, when clean."""
    loss: float
    """The same with the delta."""
    images: int
    """How many images it was fitted on: those that the model gets right when clean."""
    fooled: int
    """How many of them the delta breaks."""


@dataclass(frozen=True)
class Ascent:
    """How a delta is fitted.

    Args:
        updates: steps, each on one mini-batch; the images go by in a new order each time round.
        alpha: length of the first step, as PGD's ``alpha`` says it; it falls linearly to 0.
        restarts: fits from different random starts; the best is kept.
    """

    updates: int = 200
    alpha: str = "eps"
    restarts: int = 1

    def __post_init__(self) -> None:
        for name in ("updates", "restarts"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} {getattr(self, name)} is too few: at least 1")


def fit_universal(
    forward: Forward,
    images: Tensor,
    labels: Tensor,
    *,
    objective: Objective,
    criterion: Criterion,
    threat: ThreatModel,
    ascent: Ascent,
    batch_size: int,
    noise: NoiseSource,
    device: torch.device,
    cost: Cost,
) -> Fit:
    """Return the delta that breaks most of the images, among ten that the ascent passes through.

    Images that the model gets wrong when clean are left out (unless all are). Each step moves the delta along the sign
    (L2: the direction) of the gradient of a mini-batch's mean loss. The order of the images and the starts come from
    ``noise``, whose first sample stands for the delta. Radius 0 gives the zero delta.

    Args:
        forward: maps pixels [B, c, h, w] to logits [B, N]; see ``run_attack``.
        images: float32 [n, c, h, w] in [0, 1].
        labels: long [n].
        objective: what is raised; of its aims the first of each image.
        criterion: what counts as broken.
        threat: norm and radius of the delta.
        ascent: steps, and how long.
        batch_size: the largest batch.
        noise: where the draws come from.
        device: where to compute.
        cost: counts the images that went through the model.
    """
    labels = labels.to(device)
    with exact_float32(device):
        clean = forward_rows(forward, images, batch_size=batch_size, device=device, cost=cost)
        aims = objective.aims(clean, labels, criterion.layout)[:, 0]
        broken, _ = criterion.broken(clean, criterion.true_node(labels))
        kept = torch.nonzero(~broken)[:, 0] if not bool(broken.all()) else torch.arange(len(labels), device=device)
        task = _Task(
            images=images[kept.to(images.device)].to(device),
            aims=aims[kept],
            truth=criterion.true_node(labels)[kept],
            objective=objective,
            criterion=criterion,
            threat=threat,
            ascent=ascent,
            batch_size=batch_size,
            passes=Passes(forward=forward, layout=criterion.layout, cost=cost, part=batch_size),
        )
        with torch.no_grad():
            before = float(objective.loss(clean[kept], task.aims, criterion.layout).double().mean())
        zero = torch.zeros(images.shape[1:])
        if not threat.eps:
            return Fit(zero, before, before, len(kept), 0)
        best, score = zero, (-1, -np.inf)
        for restart in range(ascent.restarts):
            for delta in task.ascend(noise.rows([0], [restart])):
                found = task.score(delta)
                if found > score:
                    best, score = delta.cpu(), found
    return Fit(best, before, score[1], len(kept), score[0])


@dataclass(frozen=True, eq=False)
class _Task:
    """A fit on the device: the images that count, and what is asked of them."""

    images: Tensor
    aims: Tensor
    truth: Tensor
    objective: Objective
    criterion: Criterion
    threat: ThreatModel
    ascent: Ascent
    batch_size: int
    passes: Passes

    def ascend(self, noise: RowNoise) -> Iterator[Tensor]:
        """Yield the delta after every tenth of the updates, and after the last."""
        total = self.ascent.updates
        first = step_size(self.ascent.alpha, threat=self.threat, steps=total)
        start = noise.in_unit_ball(self.images.shape[1:], norm=self.threat.norm)
        delta, batches = self.threat.radius * start.to(self.images), self._batches(noise)
        for update in range(total):
            delta = self._step(delta, next(batches), first * (1 - update / total))
            if (update + 1) % max(1, total // LOOKS) == 0 or update + 1 == total:
                yield delta[0]

    def _batches(self, noise: RowNoise) -> Iterator[Tensor]:
        """Yield rows for ever: all of them in one order, in batches, then all in another."""
        for turn in itertools.count(1):
            keys = noise.source.bits(0, noise.restarts[0], count=len(self.images), draw=turn)
            order = torch.from_numpy(np.argsort(keys, kind="stable")).to(self.images.device)
            yield from torch.split(order, self.batch_size)

    def _step(self, delta: Tensor, rows: Tensor, alpha: float) -> Tensor:
        moved = self.images[rows] + delta
        found = self.passes.at(moved.clamp(0.0, 1.0), self.objective, self.aims[rows], gradient=True)
        assert found.gradient is not None
        # Outside the box the pixel is clipped, and the delta has no effect there.
        inside = (moved >= 0.0) & (moved <= 1.0)
        gradient = (found.gradient.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0) * inside).sum(dim=0, keepdim=True)
        return in_ball(delta + alpha * self.threat.direction(gradient), self.threat)

    def score(self, delta: Tensor) -> tuple[int, float]:
        """Return how many images a delta breaks, and their mean loss."""
        fooled, total = 0, 0.0
        for rows in torch.split(torch.arange(len(self.images), device=self.images.device), self.batch_size):
            moved = (self.images[rows] + delta).clamp(0.0, 1.0)
            found = self.passes.at(moved, self.objective, self.aims[rows], gradient=False)
            broken, _ = self.criterion.broken(found.logits, self.truth[rows])
            fooled += int(broken.sum())
            total += float(found.loss.double().nan_to_num().sum())
        return fooled, total / len(self.images)


def in_ball(delta: Tensor, threat: ThreatModel) -> Tensor:
    """Return perturbations [k, c, h, w] brought into the ball around 0; the box is the business of each image."""
    if threat.norm == "linf":
        return delta.clamp(-threat.radius, threat.radius)
    length = delta.flatten(1).norm(dim=1).clamp_min(torch.finfo(delta.dtype).tiny)
    return delta * per_image((threat.radius / length).clamp_max(1.0))


@dataclass
class Fitter:
    """Fits the perturbations of one model on one set of images, each once, and keeps count of what they cost.

    Args:
        forward, threat, seed, dataset, batch_size, device: as in ``run_attack``.
        given: the images.
    """

    forward: Forward
    given: FitImages
    threat: ThreatModel
    seed: int
    dataset: str
    batch_size: int
    device: torch.device
    _cost: Cost = field(default_factory=Cost)
    _seconds: float = 0.0
    _found: dict[tuple[object, ...], Fit] = field(default_factory=dict)

    def fit(self, component: str, objective: Objective, *, criterion: Criterion, ascent: Ascent, images: int) -> Fit:
        """Return the perturbation of an objective at a criterion's depth, fitted on the first ``images`` images."""
        key = (component, objective, criterion.depth, criterion.scoring, ascent, images)
        if key not in self._found:
            began = time.perf_counter()
            name = f"{component}/{criterion.scoring}/d{criterion.depth}"
            self._found[key] = fit_universal(
                self.forward,
                self.given.images[:images],
                self.given.labels[:images],
                objective=objective,
                criterion=Criterion(criterion.layout.to(self.device), criterion.depth, criterion.scoring),
                threat=self.threat,
                ascent=ascent,
                batch_size=self.batch_size,
                noise=NoiseSource(seed=self.seed, dataset=self.dataset, attack=name, sample_ids=("universal",)),
                device=self.device,
                cost=self._cost,
            )
            self._seconds += time.perf_counter() - began
        return self._found[key]

    def take_cost(self) -> tuple[Cost, float]:
        """Return what was spent, with the seconds, since this was last asked."""
        spent, seconds = self._cost, self._seconds
        self._cost, self._seconds = Cost(), 0.0
        return spent, seconds


@dataclass(frozen=True, eq=False)
class Given:
    """The optimiser that looks for nothing: every image gets one fitted perturbation."""

    fit: Fit

    @property
    def steps(self) -> int:
        """One move, which goes nowhere: the engine evaluates the point before a move and the one after the last."""
        return 1

    @property
    def uses_gradient(self) -> bool:
        """No backward is run."""
        return False

    def start(self, clean: Tensor, threat: ThreatModel, noise: RowNoise) -> tuple[Tensor, Rows]:
        """Return the images with the perturbation, inside ball and box."""
        delta = self.fit.delta
        if delta.shape != clean.shape[1:]:
            raise HierbenchError(f"a perturbation {tuple(delta.shape)} for images {tuple(clean.shape[1:])}")
        return threat.project(clean + delta.to(clean), clean), {}

    def advance(self, visit: Visit, state: Rows) -> tuple[Tensor, Rows]:
        """Return the same points."""
        return visit.query, state
