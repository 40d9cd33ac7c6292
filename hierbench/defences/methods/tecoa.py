"""TeCoA: text-guided contrastive adversarial training (arXiv 2212.07016; METHODS.md 5.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn

from hierbench.defences.base import Batch, Defence, LogValues, Perturbed
from hierbench.defences.settings import DefenceSettings

if TYPE_CHECKING:
    from hierbench.models.zeroshot import ZeroShotModel


@dataclass(frozen=True, kw_only=True)
class TeCoASettings(DefenceSettings):
    """TeCoA: PGD-2, alpha = eps, uniform start [P][C] (arXiv 2212.07016; METHODS.md 5.1)."""

    train_text_projection: bool = False
    """Ablation: also train W, as Hier-AFT does."""


class TeCoA(Defence[TeCoASettings]):
    """Minimise the cross-entropy of adversarial images against the class prompts; the attack maximises the same."""

    name = "tecoa"

    @property
    def trains(self) -> tuple[str, ...]:
        """The visual tower, and W in the ablation."""
        return ("visual", "text_projection") if self.settings.train_text_projection else ("visual",)

    def inner_objective(self, model: ZeroShotModel, adversarial: Tensor, batch: Batch, text: Tensor) -> Tensor:
        """Summed cross-entropy."""
        return nn.functional.cross_entropy(self.class_logits(model, adversarial, text), batch.labels, reduction="sum")

    def loss(self, model: ZeroShotModel, batch: Batch, perturbed: Perturbed, text: Tensor) -> tuple[Tensor, LogValues]:
        """Mean cross-entropy of the adversarial images."""
        logits = self.class_logits(model, perturbed.pixels, text)
        loss = nn.functional.cross_entropy(logits, batch.labels)
        right = (logits.detach().argmax(-1) == batch.labels).to(logits.dtype).mean()
        return loss, {"ce_leaf": loss.detach(), "adversarial_accuracy": right}
