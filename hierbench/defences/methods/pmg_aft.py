"""PMG-AFT: adversarial training guided by the pre-trained model (CVPR 2024; METHODS.md 5.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from hierbench.defences.base import Batch, LogValues, Perturbed
from hierbench.defences.losses import kl_divergence, right_share
from hierbench.defences.methods.original import AgainstOriginal
from hierbench.defences.settings import DefenceSettings

if TYPE_CHECKING:
    from hierbench.models.zeroshot import ZeroShotModel


@dataclass(frozen=True, kw_only=True)
class PMGAFTSettings(DefenceSettings):
    """PMG-AFT: PGD-2, alpha = eps [C]; two incompatible recipes are in use, and ours is the later one [D]."""

    scale: Literal["model", "one"] = "model"
    """Logits are s cos, or plain cosines (``one``) in loss and attack as in the released code [C]."""
    kl_reduction: Literal["batchmean", "sum"] = "batchmean"
    """``sum`` over the batch is the released code's [C]."""
    clean_weight: float = 1.0
    """Of KL(p_f(x) || p_f(x')), whose target is not detached [C]."""
    original_weight: float = 1.0
    """Of KL(p_f0(x') || p_f(x')) [C]."""

    def check(self) -> None:
        """See ``Settings.check``."""
        super().check()
        for name in ("clean_weight", "original_weight"):
            self.require(getattr(self, name) >= 0, name, "it should be 0 or more")


class PMGAFT(AgainstOriginal[PMGAFTSettings]):
    """CE(x') + KL(p_f0(x') || p_f(x')) + KL(p_f(x) || p_f(x')); the attack maximises the cross-entropy."""

    name = "pmg_aft"
    passes = (3, 2)

    def logits(self, model: ZeroShotModel, embedding: Tensor, text: Tensor) -> Tensor:
        """Logits [B, K] at the scale in use."""
        head, classes = model.head, text[: self.task.nodes.num_classes]
        if self.settings.scale == "model":
            return head.logits(embedding, head.points(classes, 0))
        unit = nn.functional.normalize
        return unit(embedding, dim=-1) @ unit(classes, dim=-1).transpose(0, 1)

    def inner_objective(self, model: ZeroShotModel, adversarial: Tensor, batch: Batch, text: Tensor) -> Tensor:
        """Summed cross-entropy."""
        logits = self.logits(model, model.embed(adversarial), text)
        return nn.functional.cross_entropy(logits, batch.labels, reduction="sum")

    def loss(self, model: ZeroShotModel, batch: Batch, perturbed: Perturbed, text: Tensor) -> tuple[Tensor, LogValues]:
        """The three terms."""
        settings = self.settings
        adversarial = self.logits(model, model.embed(perturbed.pixels), text)
        clean = self.logits(model, model.embed(batch.pixels), text)
        with torch.no_grad():
            original = self.logits(model, model.embed(perturbed.pixels, tower=self.original), self.original_text)
        entropy = nn.functional.cross_entropy(adversarial, batch.labels)
        to_original, to_clean = kl_divergence(original, adversarial), kl_divergence(clean, adversarial)
        # A sum over the batch is its mean times its size; a part of a batch counts for its share of that.
        times = 1 if settings.kl_reduction == "batchmean" else batch.whole or len(batch.labels)
        divergence = settings.original_weight * to_original.mean() + settings.clean_weight * to_clean.mean()
        total = entropy + times * divergence
        return total, {
            "ce_leaf": entropy.detach(),
            "kl_original": to_original.detach().mean(),
            "kl_clean": to_clean.detach().mean(),
            "adversarial_accuracy": right_share(adversarial, batch.labels),
        }
