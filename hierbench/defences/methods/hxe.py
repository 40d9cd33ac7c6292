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
    """The weight of an edge is exp(-decay depth(child)), normalised over a leaf's path."""

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
        for members, weights in self.trees:
            held = torch.where(members, log_leaf[:, None, :], -torch.inf)
            log_node = held.logsumexp(dim=-1)
            total = total - (weights.to(log_node.dtype)[labels] * log_node).sum(dim=-1)
        return total / len(self.trees)


def path_tables(tree: Hierarchy, classes: Sequence[int], *, decay: float) -> tuple[Tensor, Tensor]:
    """Return which trained leaves each node holds, bool [V, K], and each leaf's weight of log p(node), float64 [K, V].

    An edge (parent, child) of weight lambda is lambda log p(child) - lambda log p(parent); the root's p is 1.
    """
    paths = [tree.ancestors(label) for label in classes]
    nodes = sorted({node for path in paths for node in path})
    row = {node: place for place, node in enumerate(nodes)}
    members = torch.zeros(len(nodes), len(classes), dtype=torch.bool)
    weights = torch.zeros(len(classes), len(nodes), dtype=torch.float64)
    for place, path in enumerate(paths):
        raw = [math.exp(-decay * int(tree.shape.depth[node])) for node in path]
        for step, node in enumerate(path):
            weight = raw[step] / sum(raw)
            members[row[node], place] = True
            weights[place, row[node]] += weight
            if step + 1 < len(path):
                weights[place, row[path[step + 1]]] -= weight
    return members, weights
