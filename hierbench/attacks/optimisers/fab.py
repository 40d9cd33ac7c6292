"""FAB: steps to the nearest point of the linearised boundary, kept near the clean image (arXiv 1907.02044)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hierbench.attacks.optimisers.base import Rows, Visit
from hierbench.attacks.optimisers.noise import RowNoise
from hierbench.attacks.threat import BALL_TOLERANCE, ThreatModel, per_image
from hierbench.errors import InputError

TOWARDS_CLEAN = 0.1
"""Largest weight of the clean image's own projection."""
OVERSHOOT = 1.05
"""How far beyond the linearised boundary a step goes."""
BACK = 0.9
"""Share of the way from the clean image at which the search goes on after it crossed the boundary."""
_SMALL = 1e-8
_NEWTON_STEPS = 32


@dataclass(frozen=True)
class FAB:
    """Fast adaptive boundary attack: looks for the nearest misclassified image, wherever that is.

    It wants an objective that is 0 at the boundary, such as ``TargetedMarginObjective`` with kind ``margin`` (FAB-T).
    Its points may lie outside the ball; only those inside count. A point beyond the boundary costs two evaluations:
    there, and where the search goes on. First runs start at the clean image, restarts half a radius away from it.

    Args:
        iterations: projections a run.
        targets: how many runs of the objective a restart repeats, which tells restarts from first runs.
    """

    iterations: int = 100
    targets: int = 9

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise InputError(f"steps {self.iterations} is too few: at least 1")

    @property
    def steps(self) -> int:
        """The most moves in one run: after every projection there may be a step back."""
        return 2 * self.iterations

    @property
    def uses_gradient(self) -> bool:
        """Whether ``advance`` reads the gradient."""
        return True

    def start(self, clean: Tensor, threat: ThreatModel, noise: RowNoise) -> tuple[Tensor, Rows]:
        """Return the clean images, or random points near them for a restart's rows, and fresh state."""
        rows = len(clean)
        query = clean.clone()
        again = [row for row, run in enumerate(noise.restarts) if run >= self.targets]
        if again:
            unit = noise.take(again).in_unit_ball(clean.shape[1:], norm=threat.norm).to(clean)
            query[again] = (clean[again] + 0.5 * threat.radius * unit).clamp(0.0, 1.0)
        state: Rows = {
            "made": torch.zeros(rows, dtype=torch.long, device=clean.device),
            "backed": torch.ones(rows, dtype=torch.bool, device=clean.device),
            "done": torch.zeros(rows, dtype=torch.bool, device=clean.device),
            "inside": torch.ones(rows, dtype=torch.bool, device=clean.device),
        }
        return query, state

    def advance(self, visit: Visit, state: Rows) -> tuple[Tensor, Rows]:
        """Return the next points: a step back for rows beyond the boundary, a projection for the others."""
        state = dict(state)
        query, clean, threat = visit.query, visit.clean, visit.threat
        back = (visit.loss > 0) & ~state["backed"]
        onto = self._project(visit)
        moved = torch.where(per_image(back), clean + BACK * (query - clean), onto)
        state["backed"] = back
        state["made"] = state["made"] + (~back).long()
        # A run ends with its last point brought into the ball, so that what is left of it can be judged there.
        state["done"] = state["made"] >= self.iterations
        moved = torch.where(per_image(state["done"]), threat.project(moved, clean), moved)
        delta = (moved - clean).flatten(1)
        distance = delta.abs().amax(dim=1) if threat.norm == "linf" else delta.norm(dim=1)
        state["inside"] = distance <= threat.radius + BALL_TOLERANCE
        return moved, state

    @staticmethod
    def _project(visit: Visit) -> Tensor:
        query, threat, rows = visit.query, visit.threat, len(visit.query)
        flat, base, normal = query.flatten(1), visit.clean.flatten(1), visit.gradient.flatten(1)
        offset = (normal * flat).sum(dim=1) - visit.loss
        shifts = onto_plane(
            torch.cat([flat, base]), torch.cat([normal, normal]), torch.cat([offset, offset]), norm=threat.norm
        )
        lengths = shifts.abs().amax(dim=1) if threat.norm == "linf" else shifts.norm(dim=1)
        lengths = lengths.clamp_min(_SMALL)
        weight = (lengths[:rows] / (lengths[:rows] + lengths[rows:])).clamp_max(TOWARDS_CLEAN)[:, None]
        from_query, from_clean = flat + OVERSHOOT * shifts[:rows], base + OVERSHOOT * shifts[rows:]
        return torch.lerp(from_query, from_clean, weight).clamp_(0.0, 1.0).view_as(query)


def onto_plane(points: Tensor, normal: Tensor, offset: Tensor, *, norm: str) -> Tensor:
    """Return the shortest shifts that bring points in the box onto planes, staying in the box.

    Shapes: ``points``, ``normal`` [B, n]; ``offset`` [B]; the plane of a row is {x: <normal, x> = offset}, and the
    result [B, n] moves the point onto it, or as near as the box allows. ``norm`` (linf, l2) says what short is.

    The shift's size t solves sum_i |w_i| min(t u_i, r_i) = |<w, x> - offset|, r_i the room to the box and u_i = 1
    (linf) or |w_i| (l2). The left side is concave and piecewise linear, so Newton's steps from 0 rise to the root
    without passing it, and stop on it after finitely many pieces.
    """
    excess = (normal * points).sum(dim=1) - offset
    direction = -normal.sign() * excess.sign()[:, None]
    room = torch.where(direction > 0, 1.0 - points, points)
    size = normal.abs()
    rate = torch.ones_like(size) if norm == "linf" else size
    wanted = excess.abs()
    t = torch.zeros_like(wanted)
    for _ in range(_NEWTON_STEPS):
        reach = t[:, None] * rate
        free = reach < room
        missing = wanted - (size * torch.minimum(reach, room)).sum(dim=1)
        slope = (size * rate * free).sum(dim=1)
        jump = torch.where((slope > 0) & (missing > 0), missing / slope.clamp_min(torch.finfo(slope.dtype).tiny), 0.0)
        t = t + jump
        if bool((jump <= 1e-6 * t).all()):
            break
    return direction * torch.minimum(t[:, None] * rate, room)
