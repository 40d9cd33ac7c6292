"""FARE: unsupervised adversarial fine-tuning of the image embedding (ICML 2024; METHODS.md 5.3)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hierbench.defences.base import Batch, LogValues, Perturbed
from hierbench.defences.methods.original import AgainstOriginal
from hierbench.defences.settings import DefenceSettings

if TYPE_CHECKING:
    from hierbench.models.zeroshot import ZeroShotModel


@dataclass(frozen=True, kw_only=True)
class FARESettings(DefenceSettings):
    """FARE: PGD-10 from a uniform start, plain sign steps [C]."""

    attack_steps: int = 10
    alpha_share: float | None = None
    """None: 1/255 at 2/255 and 4/255, the published radii [C], and eps/4 at any other [D]."""

    def alpha(self, eps: Fraction) -> float:
        """See ``alpha_share``."""
        if self.alpha_share is not None:
            return self.alpha_share * float(eps)
        return 1 / 255 if eps in (Fraction(2, 255), Fraction(4, 255)) else float(eps) / 4


class FARE(AgainstOriginal[FARESettings]):
    """||f(x') - f0(x)||^2 on embeddings that are not normalised; no labels; the attack maximises the same."""

    name = "fare"
    passes = (2, 1)

    @torch.no_grad()
    def clean_target(self, model: ZeroShotModel, batch: Batch) -> Tensor:
        """Return f0(x) [B, E], constant."""
        return model.embed(batch.pixels, tower=self.original)

    def perturb(self, model: ZeroShotModel, batch: Batch, text: Tensor) -> Perturbed:
        """Run the inner attack with the target embedded once, for the loss as well."""
        self.target = self.clean_target(model, batch)
        return replace(super().perturb(model, batch, text), target=self.target)

    def inner_objective(self, model: ZeroShotModel, adversarial: Tensor, batch: Batch, text: Tensor) -> Tensor:
        """Summed squared distance to f0(x)."""
        return (model.embed(adversarial) - self.target).square().sum()

    def loss(self, model: ZeroShotModel, batch: Batch, perturbed: Perturbed, text: Tensor) -> tuple[Tensor, LogValues]:
        """Squared distance to f0(x): summed over dimensions, mean over the batch."""
        target = self.clean_target(model, batch) if perturbed.target is None else perturbed.target
        distance = (model.embed(perturbed.pixels) - target).square().sum(dim=-1)
        loss = distance.mean()
        return loss, {"squared_distance": loss.detach(), "target_norm": target.norm(dim=-1).mean()}
