"""What the engine asks of an optimiser.

An optimiser is asked for points and told what was found there. All it remembers is in ``Rows``: one row a sample,
each at its own step, so that a sample can leave its slot, and another take it, at any time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from hierbench.attacks.engine.batching import Forward
from hierbench.attacks.objectives.base import Objective
from hierbench.attacks.optimisers.noise import RowNoise
from hierbench.attacks.threat import ThreatModel
from hierbench.errors import InputError

Rows = dict[str, Tensor]
"""Named tensors with one row a slot.

Two names of an optimiser's state mean something to the engine: ``done`` (bool [B]) ends a run before its last step,
and ``inside`` (bool [B]) says whether the next point lies in the ball; outside it nothing counts.
"""


@dataclass(frozen=True, eq=False)
class Visit:
    """What was found at the points of one batch, one row a slot.

    Attributes:
        query: the points that were evaluated [B, c, h, w].
        clean: the images they belong to.
        threat: norm and radius of the ball around those.
        loss: [B] at the points.
        gradient: [B, c, h, w] there; finite, and zeros where none was asked for.
        step: long [B], the moves each row made before.
        noise: random numbers of each row's own.
    """

    query: Tensor
    clean: Tensor
    threat: ThreatModel
    loss: Tensor
    gradient: Tensor
    step: Tensor
    noise: RowNoise


class Optimiser(Protocol):
    """How a search moves. ``steps`` moves are made a run, so ``steps`` + 1 points are evaluated."""

    @property
    def steps(self) -> int:
        """Moves in one run."""
        ...

    @property
    def uses_gradient(self) -> bool:
        """Whether ``advance`` reads the gradient; without it no backward is run."""
        ...

    def start(self, clean: Tensor, threat: ThreatModel, noise: RowNoise) -> tuple[Tensor, Rows]:
        """Return the first points [k, c, h, w] of k new rows, inside ball and box, and the rows' own state."""
        ...

    def advance(self, visit: Visit, state: Rows) -> tuple[Tensor, Rows]:
        """Return the next points [B, c, h, w] and the new state.

        The points lie inside the box, and inside the ball unless the state says otherwise.
        """
        ...


@dataclass(frozen=True)
class Stage:
    """One component of an attack: an objective, an optimiser, and how often it starts again.

    Args:
        component: its name in the record, such as ``pgd-ce``.
        objective: what is maximised.
        optimiser: how.
        restarts: how many times each of the objective's runs is made, each from its own draw.
        depth: where its runs stop; None is the depth that is attacked. A pooled search has stages at every depth.
        eot: forwards and backwards whose gradients are averaged at each point, for a model that draws at random
            (expectation over transformation, arXiv 1707.07397); the last of them is the verdict.
        forward: what the search sees instead of the model's own forward, for an attack on more than the logits or
            through another gradient. Its first columns are the model's logits; verification never uses it.
    """

    component: str
    objective: Objective
    optimiser: Optimiser
    restarts: int = 1
    depth: int | None = None
    eot: int = 1
    forward: Forward | None = None

    def __post_init__(self) -> None:
        for name in ("restarts", "eot"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} {getattr(self, name)} is too few: at least 1")
