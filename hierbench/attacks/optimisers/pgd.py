"""Projected gradient ascent: the two steps of it as plain functions, and the optimiser made of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal

import torch
from torch import Tensor

from hierbench.attacks.optimisers.base import Rows, Visit
from hierbench.attacks.optimisers.noise import RowNoise
from hierbench.attacks.threat import ThreatModel, parse_eps
from hierbench.errors import InputError

Start = Literal["uniform", "clean"]

_SMALL = 1e-30
"""Keeps a gradient that is zero everywhere from becoming NaN."""


def uniform_start(
    images: Tensor, threat: ThreatModel, *, noise: Tensor | None = None, generator: torch.Generator | None = None
) -> Tensor:
    """Return images moved to a point drawn uniformly from the ball, clipped to the box.

    Args:
        images: [B, c, h, w] in [0, 1].
        threat: norm and radius.
        noise: a draw from the norm's unit ball, [B, c, h, w]; None draws one here.
        generator: where that draw comes from (on the images' device); None is torch's global one.
    """
    if noise is None:
        noise = _unit_ball(images, threat, generator)
    return threat.project(images + threat.radius * noise.to(images), images)


def ascend(adversarial: Tensor, images: Tensor, gradient: Tensor, threat: ThreatModel, alpha: float) -> Tensor:
    """Return the images one step of length ``alpha`` further up the gradient, inside ball and box.

    Shapes: all [B, c, h, w]. linf moves every pixel by the gradient's sign, l2 along the normalised gradient.
    """
    return threat.project(torch.add(adversarial, threat.direction(gradient), alpha=alpha), images)


def step_size(alpha: str, *, threat: ThreatModel, steps: int) -> float:
    """Return the step length that a setting means.

    ``auto`` is eps/4 under linf and 2.5 eps/steps under l2; ``eps``, ``eps/k`` and plain sizes (``2/255``) are
    taken as they are. Anything else is an ``InputError``. METHODS.md 2.

    >>> step_size("auto", threat=ThreatModel("linf", Fraction(8, 255)), steps=20) == 2 / 255
    True
    """
    if alpha == "auto":
        return float(threat.eps / 4 if threat.norm == "linf" else threat.eps * Fraction(5, 2) / steps)
    if alpha == "eps":
        return threat.radius
    if alpha.startswith("eps/"):
        divisor = parse_eps(alpha.removeprefix("eps/"), norm="l2", name="alpha: the divisor")
        if divisor > 0:
            return float(threat.eps / divisor)
        raise InputError(f"alpha {alpha!r} divides by zero: give eps/4, for example")
    size = float(parse_eps(alpha, norm=threat.norm, name="alpha"))
    if size <= 0:
        raise InputError(f"alpha {alpha!r} does not move: give auto, eps, eps/4 or a size such as 2/255")
    return size


@dataclass(frozen=True)
class PGD:
    """Projected gradient descent (Madry et al., arXiv 1706.06083), ascending the objective.

    Args:
        steps: gradient steps a run; the point after the last is evaluated too.
        alpha: step length: ``auto``, ``eps``, ``eps/k`` or a size; see ``step_size``.
        start_at: a point drawn ``uniform`` from the ball, or the ``clean`` image.
        momentum: decay of the sum of gradients, each over its L1 norm, that is followed in the gradient's place
            (MI-FGSM, arXiv 1710.06081); 0 follows the gradient itself.
    """

    steps: int = 20
    alpha: str = "auto"
    start_at: Start = "uniform"
    momentum: float = 0.0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InputError(f"steps {self.steps} is too few: at least 1")
        if self.start_at not in ("uniform", "clean"):
            raise InputError(f"start {self.start_at!r} is unknown: use uniform or clean")
        if not 0 <= self.momentum < math.inf:
            raise InputError(f"momentum {self.momentum} is no decay: give 0 or more, 1 for example")

    @property
    def uses_gradient(self) -> bool:
        """Whether ``advance`` reads the gradient."""
        return True

    def start(self, clean: Tensor, threat: ThreatModel, noise: RowNoise) -> tuple[Tensor, Rows]:
        """Return the first points to evaluate, and under linf the pixels' bounds as state."""
        state: Rows = {}
        if threat.norm == "linf":
            state["low"], state["high"] = threat.bounds(clean)
        if self.momentum:
            state["velocity"] = torch.zeros_like(clean)
        if self.start_at == "clean":
            return clean.clone(), state
        unit = noise.in_unit_ball(clean.shape[1:], norm=threat.norm)
        return uniform_start(clean, threat, noise=unit), state

    def advance(self, visit: Visit, state: Rows) -> tuple[Tensor, Rows]:
        """Return the next points to evaluate, and the state."""
        alpha = step_size(self.alpha, threat=visit.threat, steps=self.steps)
        if self.momentum:
            size = visit.gradient.abs().sum(dim=(1, 2, 3), keepdim=True)
            velocity = self.momentum * state["velocity"] + visit.gradient / size.clamp_min(_SMALL)
            visit, state = replace(visit, gradient=velocity), {**state, "velocity": velocity}
        if visit.threat.norm == "linf":  # ``ascend`` with the bounds kept from step to step
            moved = torch.add(visit.query, visit.gradient.sign(), alpha=alpha)
            return moved.clamp_(state["low"], state["high"]), state
        return ascend(visit.query, visit.clean, visit.gradient, visit.threat, alpha), state


def _unit_ball(images: Tensor, threat: ThreatModel, generator: torch.Generator | None) -> Tensor:
    if threat.norm == "linf":
        return torch.empty_like(images).uniform_(-1.0, 1.0, generator=generator)
    normal = torch.empty_like(images).normal_(generator=generator)
    size = normal[0].numel()
    uniform = torch.empty(len(images), device=images.device, dtype=images.dtype).uniform_(generator=generator)
    scale: Tensor = uniform.pow(1.0 / size) / normal.flatten(1).norm(dim=1)
    return normal * scale.view(-1, 1, 1, 1)
