"""What a training run must show: that its attack and its loss do something, and that only what it names has moved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from hierbench.defences.base import Batch, Defence, Perturbed
from hierbench.defences.training.weights import TrainedWeights, frozen_digest, scope_digests
from hierbench.errors import HierbenchError

if TYPE_CHECKING:
    from hierbench.models.zeroshot import ZeroShotModel


def check_first_step(defence: Defence[Any], weights: TrainedWeights, batch: Batch, perturbed: Perturbed) -> None:
    """Refuse a method whose attack does not move, whose loss ignores it, or that trains nothing.

    Asked after the first backward, with a gradient on the attacked pixels.
    """
    name = defence.name
    if defence.adversarial and defence.task.threat.eps > 0:
        if torch.equal(perturbed.pixels.detach(), batch.pixels):
            raise HierbenchError(f"{name}: the inner attack did not move the images")
        gradient = perturbed.pixels.grad
        if gradient is None or not bool(gradient.any()):
            raise HierbenchError(f"{name}: the loss does not depend on the adversarial images")
    for scope, group in weights.scopes.items():
        if not any(p.grad is not None and bool(p.grad.any()) for p in group.values()):
            raise HierbenchError(f"{name}: it says it trains {scope!r}, but its loss has no gradient there")


def check_moved(
    defence: Defence[Any],
    model: ZeroShotModel,
    weights: TrainedWeights,
    *,
    before: Mapping[str, str],
    frozen: str,
) -> None:
    """Refuse a run that left a scope where it was, or moved a bit outside of them; digests are those of its start."""
    after = scope_digests(weights)
    for scope, old in before.items():
        if after[scope] == old:
            raise HierbenchError(f"{defence.name}: training did not move {scope!r}")
    if frozen_digest(model, weights) != frozen:
        raise HierbenchError(f"{defence.name}: a frozen weight moved during training")
