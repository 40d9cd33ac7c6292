"""The terms of the Hier-AFT loss, as functions of logits, distances and radii (METHODS.md 5.8, HITA)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def leaf_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy over images: ``logits [B, N]``, ``labels [B]``, scalar."""
    return nn.functional.cross_entropy(logits, labels)


def node_cross_entropy(logits: Tensor, scored: Tensor) -> Tensor:
    """Mean cross-entropy over scored nodes; row m of ``logits [M, N]`` has target m; 0 if none is scored."""
    target = torch.arange(len(logits), device=logits.device)
    values = nn.functional.cross_entropy(logits, target, reduction="none")
    return masked_mean(values, scored)


def radius_hinge(parent: Tensor, child: Tensor, pairs: Tensor, *, margin: float) -> Tensor:
    """Mean of ``max(0, ||parent|| - ||child|| + margin)`` over the pairs marked in ``pairs`` bool [N]; 0 if none."""
    return masked_mean((parent - child + margin).clamp_min(0.0), pairs)


def distance_hinge(distances: Tensor, *, margin: float) -> Tensor:
    """L_vic: mean of ``max(0, d - margin)`` over images, ``distances [B]``."""
    return (distances - margin).clamp_min(0.0).mean()


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of ``values [N]`` where ``mask`` bool [N]; 0 for an empty mask."""
    kept = mask.to(values.dtype)
    return (values * kept).sum() / kept.sum().clamp_min(1.0)
