"""HXE: hierarchical cross-entropy in TeCoA's place (Bertinetto et al., CVPR 2020; METHODS.md 5.9)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hierbench.defences.methods.tree_aware import TreeAware
from hierbench.defences.settings import DefenceSettings

if TYPE_CHECKING:
    from hierbench.defences.base import TrainingTask
    from hierbench.hierarchy.tree import Hierarchy


@dataclass(frozen=True, kw_only=True)
class HXESettings(DefenceSettings):
    """PGD-2, alpha = eps, as TeCoA's [D]."""

    decay: float = 0.1
    """The weight of an edge is exp(-decay depth(child)), normalised over a leaf's path [D]."""

    def check(self) -> None:
        """See ``Settings.check``."""
        super().check()
        self.require(self.decay >= 0, "decay", "it should be 0 or more")


class HXE(TreeAware[HXESettings]):
    """- sum over the edges of the true leaf's path of lambda log p(child | parent)."""

    name = "hxe"

    def __init__(self, settings: HXESettings, task: TrainingTask) -> None:
        super().__init__(settings, task)
        device = task.hidden.device
        self.trees = [
            tuple(t.to(device) for t in path_tables(tree, task.nodes.classes, decay=settings.decay))
            for tree in task.forest.trees
        ]

    def tree_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """See ``TreeAware``; p(node) is the sum of its trained leaves' softmax."""
        log_leaf = logits.log_softmax(dim=-1)
        total = log_leaf.new_zeros(len(labels))
        for members, paths, weights in self.trees:
            # The nodes of each image's own path alone: over all nodes this is [B, V, K], gigabytes for ImageNet.
            held = torch.where(members[paths[labels]], log_leaf[:, None, :], -torch.inf)
            total = total - (weights.to(log_leaf.dtype)[labels] * held.logsumexp(dim=-1)).sum(dim=-1)
        return total / len(self.trees)


def path_tables(tree: Hierarchy, classes: Sequence[int], *, decay: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return which trained leaves each node holds, each leaf's path upward, and the weights of log p(node) on it.

    Shapes: bool [V, K]; long [K, L], rows of the first, filled up with 0; float64 [K, L], 0 where the path is filled
    up. An edge (parent, child) of weight lambda is lambda log p(child) - lambda log p(parent); the root's p is 1.
    """
    ways = [tree.ancestors(label) for label in classes]
    row = {node: place for place, node in enumerate(sorted({node for way in ways for node in way}))}
    longest = max(len(way) for way in ways)
    members = torch.zeros(len(row), len(classes), dtype=torch.bool)
    paths = torch.zeros(len(classes), longest, dtype=torch.int64)
    weights = torch.zeros(len(classes), longest, dtype=torch.float64)
    for place, way in enumerate(ways):
        raw = [math.exp(-decay * int(tree.shape.depth[node])) for node in way]
        for step, node in enumerate(way):
            members[row[node], place] = True
            paths[place, step] = row[node]
            weights[place, step] = (raw[step] - (raw[step - 1] if step else 0.0)) / sum(raw)
    return members, paths, weights
