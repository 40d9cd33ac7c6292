"""The angular gradient: what is left of the gradient at an image embedding when its radial part is dropped.

A head that reads the length of an embedding (a hyperbolic one above all) offers the loss an easy way up: change the
length. That makes the model less sure, or more, and seldom changes its answer, and a sign step spends itself on it.
Without the radial part the embedding is pushed around the origin only. METHODS.md 2; arXiv 2511.12985.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hierbench.errors import InputError


def without_radial(vectors: Tensor, points: Tensor) -> Tensor:
    """Return vectors [B, E] less their parts along the points [B, E]; a point at the origin has no radial direction.

    In float64: a radial part many times the rest would leave rounding errors of its own size.
    """
    axis = points.double()
    axis = axis / axis.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
    exact = vectors.double()
    rest: Tensor = exact - (exact * axis).sum(dim=-1, keepdim=True) * axis
    return rest.to(vectors.dtype)


class _AngularGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, points: Tensor) -> Tensor:
        ctx.save_for_backward(points)
        return points.view_as(points)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (points,) = ctx.saved_tensors
        return without_radial(gradients[0], points)


def angular(points: Tensor) -> Tensor:
    """Return points [B, E] as they are, through which only the angular part of a gradient comes back."""
    out: Tensor = _AngularGradient.apply(points)
    return out


@dataclass(frozen=True, eq=False)
class AngularForward:
    """A bound model's own forward, bit for bit, with the angular gradient at the image embedding.

    A hyperbolic head's tangent vector at the origin is a positive multiple of the embedding and is clipped along its
    own ray, so what is radial at the one is radial at the other, and one place serves every head.

    Args:
        bound: a ``hierbench.models.binding.BoundModel``.
    """

    bound: Any

    def __post_init__(self) -> None:
        check_bound(self.bound, "angular_pgd")

    def __call__(self, pixels: Tensor) -> Tensor:
        """Map pixels [B, c, h, w] in [0, 1] to the model's logits [B, N]."""
        model = self.bound.model
        logits: Tensor = model.logits(angular(model.embed(pixels)), self.bound.points)
        return logits


def check_bound(bound: Any, attack: str) -> None:
    """Refuse what has no image embedding between pixels and logits with an ``InputError``."""
    model = getattr(bound, "model", None)
    if not all(hasattr(model, name) for name in ("embed", "logits")) or not hasattr(bound, "points"):
        raise InputError(f"{attack} works at the image embedding: it needs a model bound to a tree's prompts")
