"""Verdicts: which node an image is given at each depth, and whether that is wrong.

A sample with a logit that is not finite gets no node (-1), and so is broken: a model that answers NaN has not
answered right, and must never pass for robust.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from hierbench.errors import InputError
from hierbench.models.layout import NodeLayout

Scoring = Literal["rollup", "direct"]
SCORINGS: tuple[Scoring, ...] = get_args(Scoring)

ROUNDING = 2e-5
"""How far the same logits in float32 may lie apart in batches of two sizes, relative to the largest of them."""
NO_NODE = -1
"""The predicted node of a sample whose logits are not finite."""


def predicted_nodes(logits: Tensor, layout: NodeLayout, scoring: Scoring) -> Tensor:
    """Return long [B, D]: the node each image is given at each depth, indices within the level.

    ``rollup``: the ancestor of the arg-max leaf. ``direct``: the arg-max over the depth's own logits. Ties go to
    the lowest index; logits [B, N] that are not finite give -1. METHODS.md 1.

    >>> layout = NodeLayout.from_levels([[0, 0, 1], [0, 1, 2]], direct=False)
    >>> predicted_nodes(torch.tensor([[0.0, 2.0, 2.0]]), layout, "rollup")
    tensor([[0, 1]])
    """
    return torch.stack([_nodes_at(logits, layout, depth, scoring) for depth in _depths(layout)], dim=1)


def true_nodes(labels: Tensor, layout: NodeLayout) -> Tensor:
    """Return long [B, D]: the node that holds each label at each depth."""
    return layout.leaf_to_node[:, labels].T


def broken(logits: Tensor, labels: Tensor, layout: NodeLayout, scoring: Scoring) -> Tensor:
    """Return bool [B, D]: whether each image is given a wrong node, for logits [B, N] and labels [B]. METHODS.md 1."""
    return predicted_nodes(logits, layout, scoring) != true_nodes(labels, layout)


def scorings_of(layout: NodeLayout) -> tuple[Scoring, ...]:
    """Return the scorings a layout allows: ``direct`` needs logits for the nodes of every depth."""
    return SCORINGS if layout.has_direct else ("rollup",)


@dataclass(frozen=True)
class Criterion:
    """The stop rule of a search: the verdict at one depth under one scoring, never the objective's own arg-max.

    Raises ``InputError`` where a verdict is undefined: a depth outside the tree, a depth of one node (nothing is
    wrong there, so nothing is robust), or direct scoring without node logits. METHODS.md 2, 4.
    """

    layout: NodeLayout
    depth: int
    scoring: Scoring

    def __post_init__(self) -> None:
        if self.scoring not in SCORINGS:
            raise InputError(f"scoring {self.scoring!r} is unknown: use {' or '.join(SCORINGS)}")
        if self.layout.nodes_at(self.depth) < 2:
            raise InputError(f"depth {self.depth} has one node: no answer is wrong there, so robustness is undefined")
        if self.scoring == "direct":
            self.layout.direct_columns(self.depth)

    def true_node(self, labels: Tensor) -> Tensor:
        """Return long [B]: the right node of each label."""
        return self.layout.node_of_leaf(self.depth)[labels]

    def broken(self, logits: Tensor, true_node: Tensor) -> tuple[Tensor, Tensor]:
        """Return two bool [B]: given another node than ``true_node`` [B]; of these, for logits that are not finite."""
        nodes = _nodes_at(logits, self.layout, self.depth, self.scoring)
        return nodes != true_node, nodes == NO_NODE

    def surely_broken(self, logits: Tensor, true_node: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``broken``, without those that the rounding of another batch could take back.

        A search that stopped on a tie would hold an image that its verification, in batches of another size, may judge
        the other way.
        """
        broken, nonfinite = self.broken(logits, true_node)
        slack = ROUNDING * _read(logits, self.layout, self.depth, self.scoring).abs().amax(dim=1)
        return broken & ((self.margin(logits, true_node) > slack) | nonfinite), nonfinite

    def at(self, depth: int) -> Criterion:
        """Return the same criterion at another depth."""
        return self if depth == self.depth else Criterion(self.layout, depth, self.scoring)

    def margin(self, logits: Tensor, true_node: Tensor) -> Tensor:
        """Return [B]: the best wrong logit minus the best right one; above 0 is broken, logits that are NaN give inf.

        It is the common measure by which images found with different losses are compared.
        """
        read = _read(logits, self.layout, self.depth, self.scoring)
        if self.scoring == "rollup":
            own = self.layout.node_of_leaf(self.depth) == true_node[:, None]
        else:
            own = torch.arange(read.shape[1], device=read.device) == true_node[:, None]
        wrong = read.masked_fill(own, -torch.inf).amax(dim=1)
        right = read.masked_fill(~own, -torch.inf).amax(dim=1)
        return (wrong - right).nan_to_num(nan=torch.inf)


def coarsest_broken(broken: Tensor) -> Tensor:
    """Return long [B]: the coarsest depth (1 .. D) that is broken in [B, D], D + 1 where none is.

    >>> coarsest_broken(torch.tensor([[False, True, True], [False, False, False]]))
    tensor([2, 4])
    """
    depths = torch.arange(1, broken.shape[1] + 1, device=broken.device)
    return torch.where(broken, depths, broken.shape[1] + 1).amin(dim=1)


@dataclass(frozen=True)
class DepthsBroken:
    """How coarse a mistake is, read off a table: first differing depth of (true leaf, predicted leaf).

    Roll-up cuts are nested, so one number says at which depths an image is broken: this one and all deeper.
    """

    table: Tensor
    """Long [C, C]: 1 .. D, and D + 1 on the diagonal."""
    unbroken: int
    """D + 1."""

    @classmethod
    def of(cls, layout: NodeLayout) -> DepthsBroken:
        """Build the table of a tree."""
        rows = layout.leaf_to_node
        first = torch.full((rows.shape[1],) * 2, rows.shape[0] + 1, dtype=torch.long, device=rows.device)
        for depth in range(rows.shape[0], 0, -1):
            row = rows[depth - 1]
            first[row[:, None] != row[None, :]] = depth
        return cls(first, rows.shape[0] + 1)

    def level(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return long [B]: the coarsest broken depth under roll-up; logits that are not finite break depth 1.

        A depth that is broken by no more than another batch's rounding gives D + 1, as if nothing were.
        """
        leaves = logits[:, : self.table.shape[0]]
        best, predicted = leaves.max(dim=1)
        level = self.table[labels, predicted]
        right = leaves.masked_fill(self.table[labels] <= level[:, None], -torch.inf).amax(dim=1)
        sure = best - right > ROUNDING * leaves.abs().amax(dim=1)
        level = torch.where(sure, level, self.unbroken)
        return torch.where(torch.isfinite(leaves).all(dim=1), level, 1)


def _depths(layout: NodeLayout) -> range:
    return range(1, layout.num_depths + 1)


def _read(logits: Tensor, layout: NodeLayout, depth: int, scoring: Scoring) -> Tensor:
    return logits[:, : layout.num_leaves] if scoring == "rollup" else logits[:, layout.direct_columns(depth)]


def _nodes_at(logits: Tensor, layout: NodeLayout, depth: int, scoring: Scoring) -> Tensor:
    read = _read(logits, layout, depth, scoring)
    best = read.argmax(dim=1)  # the first of equal ones
    nodes = layout.node_of_leaf(depth)[best] if scoring == "rollup" else best
    return torch.where(torch.isfinite(read).all(dim=1), nodes, NO_NODE)
