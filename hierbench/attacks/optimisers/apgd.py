"""Auto-PGD: gradient ascent with momentum whose step length halves by itself (Croce and Hein, arXiv 2003.01690)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hierbench.attacks.optimisers.base import Rows, Visit
from hierbench.attacks.optimisers.noise import RowNoise
from hierbench.attacks.threat import ThreatModel, per_image
from hierbench.errors import InputError

MOMENTUM = 0.75
"""Weight of the new step against the last one."""
PROGRESS = 0.75
"""Share of the steps of a window that have to raise the loss, else the step length halves."""
FIRST_WINDOW, SHRINK, SMALLEST_WINDOW = 0.22, 0.03, 0.06
"""Length of the first window, its decrease and its least length, as shares of all steps."""


@dataclass(frozen=True)
class APGD:
    """Auto-PGD without a step length to choose.

    Each row starts with steps of 2 eps. At the end of a window of steps, a row whose loss rose in fewer than three
    quarters of them, or whose step and best loss are those of the window before, halves its step and goes back to its
    best point. Windows shrink from 22 % of the steps to 6 %. METHODS.md 2.

    Args:
        steps: moves a run.
        patience: ends a run at the end of a window whose best loss is still further below 0 than ``patience`` times
            what the window gained. Steps only get shorter, so such a run would have to gain more in less. It is for
            losses that are 0 at success; None runs to the end, as the authors' code does.
    """

    steps: int = 100
    patience: float | None = None

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InputError(f"steps {self.steps} is too few: at least 1")
        if self.patience is not None and not self.patience > 0:
            raise InputError(f"patience {self.patience} ends every run at once: give more than 0")

    @property
    def uses_gradient(self) -> bool:
        """Whether ``advance`` reads the gradient."""
        return True

    def start(self, clean: Tensor, threat: ThreatModel, noise: RowNoise) -> tuple[Tensor, Rows]:
        """Return points on the ball's surface in a random direction, and fresh state."""
        unit = noise.in_unit_ball(clean.shape[1:], norm=threat.norm).to(clean)
        flat = unit.flatten(1)
        length = flat.abs().amax(dim=1) if threat.norm == "linf" else flat.norm(dim=1)
        query = threat.project(clean + threat.radius * unit / per_image(length), clean)
        rows = len(clean)

        def column(value: float) -> Tensor:
            return torch.full((rows,), value, device=clean.device)

        state: Rows = {
            "last": query,
            "best": query,
            "best_gradient": torch.zeros_like(clean),
            "best_loss": column(-torch.inf),
            "last_loss": column(torch.inf),
            "rises": column(0.0),
            "size": column(2.0 * threat.radius),
            "window": column(float(self._first_window)),
            "left": column(float(self._first_window)),
            "window_loss": column(-torch.inf),
            "halved": torch.ones(rows, dtype=torch.bool, device=clean.device),
        }
        if threat.norm == "linf":
            state["low"], state["high"] = threat.bounds(clean)
        if self.patience is not None:
            state["done"] = torch.zeros(rows, dtype=torch.bool, device=clean.device)
        return query, state

    def advance(self, visit: Visit, state: Rows) -> tuple[Tensor, Rows]:
        """Return the next points and the new state."""
        state, loss = dict(state), visit.loss
        first = visit.step == 0
        state["window_loss"] = torch.where(first, loss, state["window_loss"])
        state["rises"] = state["rises"] + (loss > state["last_loss"])
        state["last_loss"] = loss
        self._keep_best(visit, state)
        state["left"] = state["left"] - (~first).to(loss.dtype)
        query, gradient = self._close_windows(visit.query, visit.gradient, state)
        moved = self._move(replace(visit, query=query, gradient=gradient), state)
        state["last"] = query
        return moved, state

    @property
    def _first_window(self) -> int:
        return max(int(FIRST_WINDOW * self.steps), 1)

    @staticmethod
    def _keep_best(visit: Visit, state: Rows) -> None:
        better = visit.loss > state["best_loss"]
        state["best_loss"] = torch.where(better, visit.loss, state["best_loss"])
        state["best"] = torch.where(per_image(better), visit.query, state["best"])
        state["best_gradient"] = torch.where(per_image(better), visit.gradient, state["best_gradient"])

    def _close_windows(self, query: Tensor, gradient: Tensor, state: Rows) -> tuple[Tensor, Tensor]:
        """Judge the rows whose window ends here; return the points and gradients to move from."""
        due = state["left"] <= 0
        if not bool(due.any()):
            return query, gradient
        stalled = state["rises"] <= PROGRESS * state["window"]
        stuck = ~state["halved"] & (state["window_loss"] >= state["best_loss"])
        halve = due & (stalled | stuck)
        if self.patience is not None:
            gained = state["best_loss"] - state["window_loss"]
            state["done"] = due & (-state["best_loss"] > self.patience * gained)
        state["halved"] = torch.where(due, stalled | stuck, state["halved"])
        state["size"] = torch.where(halve, state["size"] / 2, state["size"])
        state["window_loss"] = torch.where(due, state["best_loss"], state["window_loss"])
        state["rises"] = torch.where(due, torch.zeros_like(state["rises"]), state["rises"])
        shorter = (state["window"] - max(int(SHRINK * self.steps), 1)).clamp_min(
            float(max(int(SMALLEST_WINDOW * self.steps), 1))
        )
        state["window"] = torch.where(due, shorter, state["window"])
        state["left"] = torch.where(due, state["window"], state["left"])
        back = per_image(halve)
        return torch.where(back, state["best"], query), torch.where(back, state["best_gradient"], gradient)

    @staticmethod
    def _move(visit: Visit, state: Rows) -> Tensor:
        query, threat = visit.query, visit.threat
        size = per_image(state["size"])
        share = per_image(torch.where(visit.step == 0, 1.0, MOMENTUM))
        if threat.norm == "linf":
            low, high = state["low"], state["high"]
            ahead = torch.addcmul(query, visit.gradient.sign(), size).clamp_(low, high)
            momentum = torch.lerp(query - state["last"], ahead - query, share)
            return momentum.add_(query).clamp_(low, high)
        ahead = threat.project(query + size * threat.direction(visit.gradient), visit.clean)
        return threat.project(query + torch.lerp(query - state["last"], ahead - query, share), visit.clean)
