"""Soft labels by distance in the tree, in TeCoA's place (Bertinetto et al., CVPR 2020; METHODS.md 5.9)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from hierbench.defences.losses import soft_cross_entropy
from hierbench.defences.methods.tree_aware import TreeAware
from hierbench.defences.settings import DefenceSettings

if TYPE_CHECKING:
    from hierbench.defences.base import TrainingTask
    from hierbench.hierarchy.tree import Hierarchy


@dataclass(frozen=True, kw_only=True)
class SoftLabelSettings(DefenceSettings):
    """PGD-2, alpha = eps, as TeCoA's [D]."""

    sharpness: float = 10.0
    """q(c) is proportional to exp(-sharpness h(LCA(c, y)) / h_max), h_max of the whole tree [D]."""

    def check(self) -> None:
        """See ``Settings.check``."""
        super().check()
        self.require(self.sharpness > 0, "sharpness", "it should be above 0")


class SoftLabels(TreeAware[SoftLabelSettings]):
    """Cross-entropy to targets that give some weight to near classes."""

    name = "soft_labels"

    def __init__(self, settings: SoftLabelSettings, task: TrainingTask) -> None:
        super().__init__(settings, task)
        self.targets = [
            soft_targets(tree, task.nodes.classes, sharpness=settings.sharpness).to(task.hidden.device)
            for tree in task.forest.trees
        ]

    def tree_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """See ``TreeAware``."""
        losses = [soft_cross_entropy(target.to(logits.dtype)[labels], logits) for target in self.targets]
        return torch.stack(losses).mean(dim=0)


def soft_targets(tree: Hierarchy, classes: Sequence[int], *, sharpness: float) -> Tensor:
    """Return q [K, K] in float64: row y is the target of class y over the trained classes."""
    height = tree.lca_height[np.ix_(list(classes), list(classes))].astype(np.float64)
    raw = np.exp(-sharpness * height / tree.shape.height[tree.shape.root])
    return torch.from_numpy(raw / raw.sum(axis=1, keepdims=True))
