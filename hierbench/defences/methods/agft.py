"""AGFT: alignment-guided fine-tuning on calibrated soft targets (CVPR 2026, arXiv 2603.29410; METHODS.md 5.7)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hierbench.defences.base import Batch, LogValues, Perturbed
from hierbench.defences.losses import right_share, soft_cross_entropy
from hierbench.defences.methods.original import AgainstOriginal
from hierbench.defences.settings import DefenceSettings

if TYPE_CHECKING:
    from hierbench.models.zeroshot import ZeroShotModel


@dataclass(frozen=True, kw_only=True)
class AGFTSettings(DefenceSettings):
    """AGFT: PGD-2, alpha = eps; both factors from the released code, where s = 100 makes them 72 and 180 [C]."""

    target_factor: float = 0.72
    """q = softmax(target_factor s cos(f0(x), g(t))); 1 with ``prediction_factor`` 1 is the ablation without
    calibration."""
    prediction_factor: float = 1.8
    """Of the prediction's logits in training and its attack; evaluation is at s."""

    def check(self) -> None:
        """See ``Settings.check``."""
        super().check()
        for name in ("target_factor", "prediction_factor"):
            self.require(getattr(self, name) > 0, name, "it should be above 0")


class AGFT(AgainstOriginal[AGFTSettings]):
    """Cross-entropy to the original model's soft answer on the clean image, which the attack maximises; no labels."""

    name = "agft"
    passes = (2, 1)

    @torch.no_grad()
    def soft_target(self, model: ZeroShotModel, batch: Batch) -> Tensor:
        """Return q [B, K], constant."""
        points = model.head.points(self.original_text[: self.task.nodes.num_classes], 0)
        logits = model.logits(model.embed(batch.pixels, tower=self.original), points)
        return (self.settings.target_factor * logits).softmax(dim=-1)

    def perturb(self, model: ZeroShotModel, batch: Batch, text: Tensor) -> Perturbed:
        """Run the inner attack with q computed once, for the loss as well."""
        self.target = self.soft_target(model, batch)
        return replace(super().perturb(model, batch, text), target=self.target)

    def inner_objective(self, model: ZeroShotModel, adversarial: Tensor, batch: Batch, text: Tensor) -> Tensor:
        """Summed soft cross-entropy."""
        logits = self.settings.prediction_factor * self.class_logits(model, adversarial, text)
        return soft_cross_entropy(self.target, logits).sum()

    def loss(self, model: ZeroShotModel, batch: Batch, perturbed: Perturbed, text: Tensor) -> tuple[Tensor, LogValues]:
        """Mean soft cross-entropy of the adversarial images."""
        target = self.soft_target(model, batch) if perturbed.target is None else perturbed.target
        logits = self.class_logits(model, perturbed.pixels, text)
        loss = soft_cross_entropy(target, self.settings.prediction_factor * logits).mean()
        return loss, {
            "soft_cross_entropy": loss.detach(),
            "target_confidence": target.amax(dim=-1).mean(),
            "adversarial_accuracy": right_share(logits, batch.labels),
        }
