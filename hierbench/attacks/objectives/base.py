"""Objectives: what an attack maximises, per sample, given logits over leaves and nodes.

An objective knows depths and nodes and nothing of optimisers. It first fixes, once and from the clean logits, what
each sample's runs aim at (``aims``); then it turns logits and aims into a loss for each row (``loss``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from hierbench.attacks.verdict import Scoring
from hierbench.errors import InputError
from hierbench.models.layout import NodeLayout

Pooling = Literal["max", "logsumexp"]
POOLINGS: tuple[Pooling, ...] = get_args(Pooling)

UNUSED = -1
"""An aim that a row does not have; a run all of whose aims are this is not made."""


class Objective(Protocol):
    """What an attack maximises. Losses are larger the worse for the model, so optimisers only ascend."""

    def aims(self, clean_logits: Tensor, labels: Tensor, layout: NodeLayout) -> Tensor:
        """Return long [n, T, k]: for each sample and each of its T runs a restart repeats, the k nodes it is about."""
        ...

    def loss(self, logits: Tensor, aims: Tensor, layout: NodeLayout) -> Tensor:
        """Return [B] from logits [B, N] and the rows' own aims [B, k]; differentiable in the logits."""
        ...


def node_logits(logits: Tensor, layout: NodeLayout, *, depth: int, scoring: Scoring, pooling: Pooling) -> Tensor:
    """Return [B, n_d]: logits of the nodes at a depth, from logits [B, N].

    ``direct`` reads the depth's own columns. ``rollup`` pools the leaf logits under each node, by ``max`` (NHA,
    arXiv 2108.11785: its arg-max is the roll-up verdict) or ``logsumexp`` (its softmax is the node's probability).
    """
    if scoring == "direct":
        return logits[:, layout.direct_columns(depth)]
    leaves = logits[:, : layout.num_leaves]
    if depth == layout.num_depths:
        return leaves
    owner = layout.node_of_leaf(depth).expand_as(leaves)
    empty = leaves.new_full((leaves.shape[0], layout.nodes_at(depth)), -torch.inf)
    if pooling == "max":
        return empty.scatter_reduce(1, owner, leaves, reduce="amax", include_self=False)
    # Each node is stabilised by its own largest leaf: with one shift for all, a node far below the best would
    # underflow to a probability of 0, an infinite loss and a NaN gradient.
    largest = empty.scatter_reduce(1, owner, leaves.detach(), reduce="amax", include_self=False)
    spread = torch.exp(leaves - largest.gather(1, owner))
    # A product with the 0/1 table, not index_add: the latter adds in no fixed order on CUDA.
    return largest + torch.log(spread @ layout.membership(depth).to(spread.dtype))


def level_weights(num_depths: int) -> tuple[float, ...]:
    """Return w for the depths 1 .. D: 1 - l / (L + 1) with l = D - d and L = D. METHODS.md 1.

    >>> [round(weight, 3) for weight in level_weights(5)]
    [0.333, 0.5, 0.667, 0.833, 1.0]
    """
    return tuple(1.0 - (num_depths - depth) / (num_depths + 1) for depth in range(1, num_depths + 1))


def check_pooling(pooling: str) -> None:
    """Refuse an unknown pooling with an ``InputError``."""
    if pooling not in POOLINGS:
        raise InputError(f"pooling {pooling!r} is unknown: use {' or '.join(POOLINGS)}")


@dataclass(frozen=True)
class LeafObjective:
    """Cross-entropy of the true leaf over all leaf prompts. METHODS.md 2, ``leaf_pgd``."""

    def aims(self, clean_logits: Tensor, labels: Tensor, layout: NodeLayout) -> Tensor:
        """Return the labels, [n, 1, 1]."""
        return labels[:, None, None]

    def loss(self, logits: Tensor, aims: Tensor, layout: NodeLayout) -> Tensor:
        """Return the cross-entropy of each row's label, [B]."""
        return cross_entropy(logits[:, : layout.num_leaves], aims[:, 0], reduction="none")


@dataclass(frozen=True)
class NodeObjective:
    """Cross-entropy of the true node at one depth. METHODS.md 2, ``superclass_pgd``."""

    depth: int
    scoring: Scoring
    pooling: Pooling

    def __post_init__(self) -> None:
        check_pooling(self.pooling)

    def aims(self, clean_logits: Tensor, labels: Tensor, layout: NodeLayout) -> Tensor:
        """Return the true nodes, [n, 1, 1]."""
        return layout.node_of_leaf(self.depth)[labels][:, None, None]

    def loss(self, logits: Tensor, aims: Tensor, layout: NodeLayout) -> Tensor:
        """Return the cross-entropy of each row's true node, [B]."""
        nodes = node_logits(logits, layout, depth=self.depth, scoring=self.scoring, pooling=self.pooling)
        return cross_entropy(nodes, aims[:, 0], reduction="none")


@dataclass(frozen=True)
class LevelsObjective:
    """Weighted sum over the depths of the cross-entropy of the true node. METHODS.md 2, ``multilevel_pgd``.

    Args:
        scoring, pooling: how node logits are made.
        weights: one a depth, coarsest first; None gives those of ``level_weights``.
    """

    scoring: Scoring
    pooling: Pooling
    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        check_pooling(self.pooling)

    def aims(self, clean_logits: Tensor, labels: Tensor, layout: NodeLayout) -> Tensor:
        """Return the true node of every depth, [n, 1, D]."""
        if self.weights is not None and len(self.weights) != layout.num_depths:
            raise InputError(f"weights has {len(self.weights)} values, and the tree {layout.num_depths} depths")
        return layout.leaf_to_node[:, labels].T[:, None, :]

    def loss(self, logits: Tensor, aims: Tensor, layout: NodeLayout) -> Tensor:
        """Return the weighted sum for each row, [B]."""
        total = logits.new_zeros(logits.shape[0])
        weights = self.weights or level_weights(layout.num_depths)
        for depth, weight in enumerate(weights, start=1):
            if weight:
                nodes = node_logits(logits, layout, depth=depth, scoring=self.scoring, pooling=self.pooling)
                total = total + weight * cross_entropy(nodes, aims[:, depth - 1], reduction="none")
        return total


@dataclass(frozen=True)
class TargetedObjective:
    """Minus the cross-entropy of a wrong node at one depth, for each of the strongest wrong nodes in turn.

    The wrong nodes are ranked once, on the clean logits, by what the verdict reads. With ``path`` the target's
    ancestors are aimed at too, each with its depth's weight, so that the target is consistent at coarser depths.
    A target is never the true node, its ancestor or its descendant: an ancestor the target shares with the truth
    is left out. METHODS.md 2, ``multilevel_pgd``, targeted.

    Args:
        depth: where the targets are.
        scoring, pooling: how node logits are made.
        targets: how many, T; at most n_d - 1 are there.
        path: whether the target's ancestors count too.
    """

    depth: int
    scoring: Scoring
    pooling: Pooling
    targets: int = 9
    path: bool = False

    def __post_init__(self) -> None:
        check_pooling(self.pooling)
        if self.targets < 1:
            raise InputError(f"targets {self.targets} is too few: at least 1")

    def aims(self, clean_logits: Tensor, labels: Tensor, layout: NodeLayout) -> Tensor:
        """Return the targets' nodes at the depths 1 .. ``depth``, -1 where one is not aimed at, [n, T, depth]."""
        count = min(self.targets, layout.nodes_at(self.depth) - 1)
        if count < 1:
            raise InputError(f"depth {self.depth} has one node: there is no wrong node to aim at")
        truth = layout.node_of_leaf(self.depth)[labels]
        strength = node_logits(clean_logits, layout, depth=self.depth, scoring=self.scoring, pooling="max")
        strength = strength.scatter(1, truth[:, None], -torch.inf)
        chosen = strength.sort(dim=1, descending=True, stable=True).indices[:, :count]
        aims = layout.ancestors(self.depth)[chosen]
        if not self.path:
            aims[..., :-1] = UNUSED
        shared = aims == layout.leaf_to_node[: self.depth, labels].T[:, None, :]
        return aims.masked_fill(shared, UNUSED)

    def loss(self, logits: Tensor, aims: Tensor, layout: NodeLayout) -> Tensor:
        """Return minus the cross-entropy of each row's target (and its path), [B]."""
        total = logits.new_zeros(logits.shape[0])
        weights = level_weights(layout.num_depths)
        for depth in range(1 if self.path else self.depth, self.depth + 1):
            aim = aims[:, depth - 1]
            nodes = node_logits(logits, layout, depth=depth, scoring=self.scoring, pooling=self.pooling)
            weight = 1.0 if depth == self.depth else weights[depth - 1]
            total = total - weight * cross_entropy(nodes, aim, reduction="none", ignore_index=UNUSED)
        return total
