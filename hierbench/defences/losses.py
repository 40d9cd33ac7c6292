"""Terms that several defences share, as functions of logits."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from hierbench.models.zeroshot import ZeroShotModel


def kl_divergence(target: Tensor, predicted: Tensor) -> Tensor:
    """Return KL(softmax(target) || softmax(predicted)) of logits [B, K] in nats, one an image [B].

    ``target`` is the distribution the mean is taken over; gradients flow through both unless one is detached.
    """
    log_target = target.log_softmax(dim=-1)
    return (log_target.exp() * (log_target - predicted.log_softmax(dim=-1))).sum(dim=-1)


def soft_cross_entropy(target: Tensor, logits: Tensor) -> Tensor:
    """Return - sum_j target_j log softmax_j(logits) for ``target`` [B, K] that sums to 1, one an image [B]."""
    return -(target * logits.log_softmax(dim=-1)).sum(dim=-1)


def right_share(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the share of images whose largest logit is their label's, detached."""
    return (logits.detach().argmax(-1) == labels).to(torch.float32).mean()


def frozen_tower(model: ZeroShotModel) -> nn.Module:
    """Return a copy of the image tower as it is now, in eval mode, that nothing trains: f0 of METHODS.md 5."""
    tower = copy.deepcopy(model.visual)
    return tower.eval().requires_grad_(False)
