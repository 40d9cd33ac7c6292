"""What the two tree-aware controls share: TeCoA with another classification loss in loss and attack."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from hierbench.defences.base import Batch, Defence, LogValues, Perturbed
from hierbench.defences.losses import right_share
from hierbench.defences.settings import DefenceSettings

if TYPE_CHECKING:
    from hierbench.models.zeroshot import ZeroShotModel

SettingsT = TypeVar("SettingsT", bound=DefenceSettings)


class TreeAware(Defence[SettingsT]):
    """Minimise a loss of leaf logits that knows the tree; the attack maximises the same. METHODS.md 5.9."""

    @property
    def trains(self) -> tuple[str, ...]:
        """The visual tower."""
        return ("visual",)

    @abstractmethod
    def tree_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of logits [B, K] over the trained classes, one an image [B]; mean over the trees."""

    def inner_objective(self, model: ZeroShotModel, adversarial: Tensor, batch: Batch, text: Tensor) -> Tensor:
        """The loss, summed."""
        return self.tree_loss(self.class_logits(model, adversarial, text), batch.labels).sum()

    def loss(self, model: ZeroShotModel, batch: Batch, perturbed: Perturbed, text: Tensor) -> tuple[Tensor, LogValues]:
        """The mean loss of the adversarial images."""
        logits = self.class_logits(model, perturbed.pixels, text)
        loss = self.tree_loss(logits, batch.labels).mean()
        with torch.no_grad():
            entropy = torch.nn.functional.cross_entropy(logits.detach(), batch.labels)
        return loss, {
            "tree_loss": loss.detach(),
            "ce_leaf": entropy,
            "adversarial_accuracy": right_share(logits, batch.labels),
        }
