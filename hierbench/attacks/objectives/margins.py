"""Objectives on the differences of logits: margin, DLR and their targeted forms, over leaves or nodes.

Cross-entropy saturates where a model is sure of itself; differences do not. The DLR loss divides them by a spread of
the logits, so that neither their shift nor their scale matters. METHODS.md 2; Croce and Hein, arXiv 2003.01690.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from hierbench.attacks.objectives.base import Pooling, check_pooling, node_logits
from hierbench.attacks.verdict import Scoring
from hierbench.errors import InputError
from hierbench.models.layout import NodeLayout

DLR_CANDIDATES = 3
"""The untargeted DLR loss divides by the first minus the third largest logit."""
TARGETED_DLR_CANDIDATES = 4
"""The targeted one by the first minus the mean of the third and the fourth."""
_TINY = 1e-12

Kind = Literal["dlr", "margin"]


@dataclass(frozen=True)
class MarginObjective:
    """The best wrong logit minus the true one at a depth, as it is (``margin``) or scaled (``dlr``).

    Args:
        depth, scoring, pooling: which logits; see ``node_logits``.
        kind: ``margin`` (Carlini and Wagner without a hinge) or ``dlr``, which wants three candidates.
        confidence: with ``margin``, the loss stops growing at this margin (CW's kappa); None lets it grow.
    """

    depth: int
    scoring: Scoring
    pooling: Pooling = "max"
    kind: Kind = "margin"
    confidence: float | None = None

    def __post_init__(self) -> None:
        check_pooling(self.pooling)

    def aims(self, clean_logits: Tensor, labels: Tensor, layout: NodeLayout) -> Tensor:
        """Return the true nodes, [n, 1, 1]; fewer candidates than the loss needs are an ``InputError``."""
        _check_count(self.kind, layout.nodes_at(self.depth), DLR_CANDIDATES, self.depth)
        return layout.node_of_leaf(self.depth)[labels][:, None, None]

    def loss(self, logits: Tensor, aims: Tensor, layout: NodeLayout) -> Tensor:
        """Return the loss of each row, [B]; above 0 the true node has lost."""
        nodes = node_logits(logits, layout, depth=self.depth, scoring=self.scoring, pooling=self.pooling)
        largest, where = nodes.topk(DLR_CANDIDATES if self.kind == "dlr" else 2, dim=1)
        true = nodes.gather(1, aims)[:, 0]
        rival = torch.where(where[:, 0] == aims[:, 0], largest[:, 1], largest[:, 0])
        gap = rival - true
        if self.kind == "dlr":
            return gap / (largest[:, 0] - largest[:, 2] + _TINY)
        return gap if self.confidence is None else gap.clamp_max(self.confidence)


@dataclass(frozen=True)
class TargetedMarginObjective:
    """A wrong node's logit minus the true one's, for each of the strongest wrong nodes in turn.

    The wrong nodes are ranked once, on the clean logits.

    Args:
        depth, scoring, pooling: which logits; see ``node_logits``.
        kind: ``margin``, or ``dlr``, which wants four candidates.
        targets: how many, T; at most n_d - 1 are there.
    """

    depth: int
    scoring: Scoring
    pooling: Pooling = "max"
    kind: Kind = "dlr"
    targets: int = 9

    def __post_init__(self) -> None:
        check_pooling(self.pooling)
        if self.targets < 1:
            raise InputError(f"targets {self.targets} is too few: at least 1")

    def aims(self, clean_logits: Tensor, labels: Tensor, layout: NodeLayout) -> Tensor:
        """Return (true node, target) of every run, [n, T, 2]."""
        _check_count(self.kind, layout.nodes_at(self.depth), TARGETED_DLR_CANDIDATES, self.depth)
        count = min(self.targets, layout.nodes_at(self.depth) - 1)
        truth = layout.node_of_leaf(self.depth)[labels]
        strength = node_logits(clean_logits, layout, depth=self.depth, scoring=self.scoring, pooling="max")
        strength = strength.scatter(1, truth[:, None], -torch.inf)
        targets = strength.sort(dim=1, descending=True, stable=True).indices[:, :count]
        return torch.stack([truth[:, None].expand_as(targets), targets], dim=2)

    def loss(self, logits: Tensor, aims: Tensor, layout: NodeLayout) -> Tensor:
        """Return the loss of each row, [B]."""
        nodes = node_logits(logits, layout, depth=self.depth, scoring=self.scoring, pooling=self.pooling)
        gap = nodes.gather(1, aims[:, 1:])[:, 0] - nodes.gather(1, aims[:, :1])[:, 0]
        if self.kind == "margin":
            return gap
        largest = nodes.topk(TARGETED_DLR_CANDIDATES, dim=1).values
        return gap / (largest[:, 0] - 0.5 * (largest[:, 2] + largest[:, 3]) + _TINY)


def _check_count(kind: Kind, candidates: int, wanted: int, depth: int) -> None:
    needed = wanted if kind == "dlr" else 2
    if candidates < needed:
        raise InputError(f"depth {depth} has {candidates} nodes: the {kind} loss needs {needed}")
