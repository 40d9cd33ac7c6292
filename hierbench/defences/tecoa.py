"""TeCoA: text-guided contrastive adversarial training (arXiv 2212.07016; METHODS.md 5.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from hierbench.defences.base import Batch, Defence, LogValues, Perturbed
from hierbench.defences.settings import TeCoASettings

if TYPE_CHECKING:
    from hierbench.models.zeroshot import ZeroShotModel


class TeCoA(Defence[TeCoASettings]):
    """Minimise the cross-entropy of adversarial images against the class prompts; the attack maximises the same."""

    name = "tecoa"

    @property
    def trains(self) -> tuple[str, ...]:
        """The visual tower, and W in the ablation."""
        return ("visual", "text_projection") if self.settings.train_text_projection else ("visual",)

    def leaf_logits(self, model: ZeroShotModel, pixels: Tensor) -> Tensor:
        """Logits [B, K] of images over the class prompts."""
        features = self.task.hidden[: self.task.nodes.num_classes] @ model.text_projection
        return model.logits(model.embed(pixels), model.head.points(features, 0))

    def inner_objective(self, model: ZeroShotModel, adversarial: Tensor, batch: Batch) -> Tensor:
        """Summed cross-entropy."""
        return nn.functional.cross_entropy(self.leaf_logits(model, adversarial), batch.labels, reduction="sum")

    def loss(self, model: ZeroShotModel, batch: Batch, perturbed: Perturbed) -> tuple[Tensor, LogValues]:
        """Mean cross-entropy of the adversarial images."""
        logits = self.leaf_logits(model, perturbed.pixels)
        loss = nn.functional.cross_entropy(logits, batch.labels)
        right = (logits.detach().argmax(-1) == batch.labels).to(logits.dtype).mean()
        return loss, {"ce_leaf": loss.detach(), "adversarial_accuracy": right}
