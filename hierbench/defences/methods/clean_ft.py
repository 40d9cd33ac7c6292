"""Plain fine-tuning on clean images: what the others' robustness costs and gains is measured against it."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from torch import Tensor, nn

from hierbench.defences.base import Batch, Defence, LogValues, Perturbed
from hierbench.defences.losses import right_share
from hierbench.defences.settings import DefenceSettings

if TYPE_CHECKING:
    from hierbench.models.zeroshot import ZeroShotModel


@dataclass(frozen=True, kw_only=True)
class CleanFTSettings(DefenceSettings):
    """TeCoA without its attack [D]."""

    attack_steps: int = 0
    """There is no inner attack; anything else is refused."""
    train_text_projection: bool = False
    """Also train W, as Hier-AFT does."""

    def check(self) -> None:
        """See ``Settings.check``."""
        self.require(self.attack_steps == 0, "attack_steps", "clean_ft attacks nothing; it should be 0")

    def alpha(self, eps: Fraction) -> float:
        """Nothing is stepped."""
        return 0.0


class CleanFT(Defence[CleanFTSettings]):
    """Minimise the cross-entropy of clean images against the class prompts."""

    name = "clean_ft"
    adversarial = False

    @property
    def trains(self) -> tuple[str, ...]:
        """The visual tower, and W in the ablation."""
        return ("visual", "text_projection") if self.settings.train_text_projection else ("visual",)

    def perturb(self, model: ZeroShotModel, batch: Batch, text: Tensor) -> Perturbed:
        """Return the images as they are."""
        return Perturbed(pixels=batch.pixels.clone())

    def loss(self, model: ZeroShotModel, batch: Batch, perturbed: Perturbed, text: Tensor) -> tuple[Tensor, LogValues]:
        """Mean cross-entropy of the clean images."""
        logits = self.class_logits(model, perturbed.pixels, text)
        loss = nn.functional.cross_entropy(logits, batch.labels)
        return loss, {"ce_leaf": loss.detach(), "clean_accuracy": right_share(logits, batch.labels)}
