"""TGA-ZSR: text-guided attention for zero-shot robustness (NeurIPS 2024; METHODS.md 5.4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn

from hierbench.defences.attention import AttentionGuide, AttentionSettings, dense_features
from hierbench.defences.base import Batch, Defence, LogValues, Perturbed
from hierbench.defences.losses import right_share

if TYPE_CHECKING:
    from hierbench.models.zeroshot import ZeroShotModel


@dataclass(frozen=True, kw_only=True)
class TGAZSRSettings(AttentionSettings):
    """TGA-ZSR: PGD-2, alpha = eps, a = 0.08, b = 0.05 times 224/H [P][C]; H is the side of the tower's input [D]."""


class TGAZSR(Defence[TGAZSRSettings]):
    """CE(x') + a mean||A_f(x') - A_f0(x)|| + b mean||A_f(x) - A_f0(x)||; the attack maximises the cross-entropy.

    A is the attention map of the true class's prompt at the input's size.
    """

    name = "tga_zsr"
    passes = (3, 2)
    guide: AttentionGuide

    @property
    def trains(self) -> tuple[str, ...]:
        """The visual tower."""
        return ("visual",)

    def attach(self, model: ZeroShotModel) -> None:
        """Keep f0; a tower whose positions cannot be compared with text is refused here."""
        self.guide = AttentionGuide(model, self.settings)

    def inner_objective(self, model: ZeroShotModel, adversarial: Tensor, batch: Batch, text: Tensor) -> Tensor:
        """Summed cross-entropy."""
        return nn.functional.cross_entropy(self.class_logits(model, adversarial, text), batch.labels, reduction="sum")

    def loss(self, model: ZeroShotModel, batch: Batch, perturbed: Perturbed, text: Tensor) -> tuple[Tensor, LogValues]:
        """The three terms."""
        classes = text[: self.task.nodes.num_classes]
        adversarial = dense_features(model.visual, model.pixels(perturbed.pixels))
        logits = model.logits(adversarial.embedding, model.head.points(classes, 0))
        entropy = nn.functional.cross_entropy(logits, batch.labels)
        direction = nn.functional.normalize(classes, dim=-1)[batch.labels]
        terms, log = self.guide.terms(model, adversarial, batch.pixels, direction)
        return entropy + terms, {
            "ce_leaf": entropy.detach(),
            **log,
            "adversarial_accuracy": right_share(logits, batch.labels),
        }
