"""What a diagnosis is made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hierbench.attacks.engine.batching import Forward
from hierbench.attacks.threat import ThreatModel
from hierbench.attacks.verdict import Scoring
from hierbench.models.layout import NodeLayout

Level = Literal["pass", "warn", "fail"]


@dataclass(frozen=True)
class Check:
    """One check: its name, how it ended, its figure, and one sentence on what that means."""

    name: str
    level: Level
    value: str
    sentence: str


@dataclass(frozen=True)
class Diagnosis:
    """What the checks found on one model."""

    model: str
    dataset: str
    samples: int
    depth: int
    scoring: Scoring
    threat: ThreatModel
    checks: tuple[Check, ...]

    @property
    def failed(self) -> bool:
        """True if some check failed: robustness figures of this model mean nothing until that is understood."""
        return any(check.level == "fail" for check in self.checks)

    def level(self, name: str) -> Level:
        """Return how a check ended; one that was not made is a ``KeyError``."""
        return {check.name: check.level for check in self.checks}[name]


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How hard the checks look.

    Args:
        steps: gradient steps of the strongest runs; the weaker take a tenth and two fifths of them.
        targets: wrong nodes that the targeted attack aims at.
        queries: queries of the black-box attack.
        points: random points of the ball that are looked at, a sample.
    """

    steps: int = 50
    targets: int = 3
    queries: int = 300
    points: int = 8


@dataclass(frozen=True, eq=False, kw_only=True)
class Subject:
    """A model on some samples under a threat model.

    Args:
        forward: maps pixels [B, c, h, w] in [0, 1] to float32 logits [B, N], columns as ``layout`` says.
        images: float32 [n, c, h, w] in [0, 1].
        labels: long [n].
        ids: n unique ids.
        depth, scoring: where verdicts are taken.
        module: what weights, buffers and modes are read of; None is ``forward``, if it is a module.
    """

    name: str
    forward: Forward
    layout: NodeLayout
    images: Tensor
    labels: Tensor
    ids: tuple[str, ...]
    threat: ThreatModel
    depth: int
    scoring: Scoring = "rollup"
    dataset: str = "images"
    batch_size: int = 128
    seed: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    module: nn.Module | None = None


@dataclass(frozen=True, eq=False)
class Points:
    """What the probes saw and the attacks' checks need.

    Args:
        clean_logits: [n, N].
        right: bool [n], right on the clean image at the depth that is attacked.
        random_broken: bool [n], broken by some random point of the ball, or when clean.
    """

    clean_logits: Tensor
    right: NDArray[np.bool_]
    random_broken: NDArray[np.bool_]
