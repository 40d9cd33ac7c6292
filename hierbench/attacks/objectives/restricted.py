"""Objectives over the classes near to the true one in the tree, or far from it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from hierbench.errors import InputError
from hierbench.models.layout import NodeLayout


@dataclass(frozen=True, eq=False)
class RestrictedObjective:
    """Cross-entropy of the true leaf among the truth and the leaves that are kept for it.

    ``lha`` keeps the classes whose lowest common ancestor with the truth is low, ``gha`` those where it is high. The
    search stops when the arg-max among the kept is wrong; then some class beats the truth, so the ordinary verdict at
    the leaves is broken too. METHODS.md 2.

    Args:
        kept: bool [C, C]; row y are the classes kept for truth y, y among them. A row of the truth alone leaves
            nothing to search for.
    """

    kept: Tensor

    def __post_init__(self) -> None:
        if not bool(self.kept.diagonal().all()):
            raise ValueError("every class must be kept for itself")
        if not bool((self.kept.sum(dim=1) > 1).any()):
            raise InputError("no class keeps another one at this height: the attack is undefined")

    def aims(self, clean_logits: Tensor, labels: Tensor, layout: NodeLayout) -> Tensor:
        """Return the labels, [n, 1, 1]; -1 (no run) where no other class is kept."""
        alone = self.kept.to(labels.device).sum(dim=1)[labels] < 2
        return labels.masked_fill(alone, -1)[:, None, None]

    def loss(self, logits: Tensor, aims: Tensor, layout: NodeLayout) -> Tensor:
        """Return the cross-entropy of each row's label among the kept, [B]."""
        return cross_entropy(self._among(logits, aims, layout), aims[:, 0], reduction="none")

    def lost(self, logits: Tensor, aims: Tensor, layout: NodeLayout) -> Tensor:
        """Return bool [B]: whether the best kept class is a wrong one."""
        return self._among(logits, aims, layout).argmax(dim=1) != aims[:, 0]

    def _among(self, logits: Tensor, aims: Tensor, layout: NodeLayout) -> Tensor:
        """Return the leaf logits with the others out of the softmax, [B, C]; their gradient is exactly 0."""
        kept = self.kept.to(logits.device)[aims[:, 0]]
        return logits[:, : layout.num_leaves].masked_fill(~kept, -torch.inf)
