"""The Poincare ball of curvature ``-r``: exponential map, distance, midpoint, Moebius addition.

Every function takes ``r >= 0`` as a number; ``r = 0`` is the Euclidean limit and is exact, not approximate
(points stay where they are, distances are ``2 ||u - v||``, midpoints are means). METHODS.md 5.8.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

MAX_TANGENT = 2.0
"""Tangent norms are clipped at ``MAX_TANGENT / sqrt(r)`` before ``exp0`` (METHODS.md 5.8, [D])."""

BALL_MARGIN = 1e-3
"""Points are kept at ``sqrt(r) ||u|| <= 1 - BALL_MARGIN``; a safety net that should never act."""

_SERIES_BELOW = 1e-4
"""Below this squared argument tanh(x)/x and asinh(x)/x are summed as series: their quotient loses its gradient at 0."""


def exp0(tangent: Tensor, *, r: float) -> Tensor:
    """Map tangent vectors at the origin onto the ball: ``tanh(sqrt r ||v||) v / (sqrt r ||v||)``.

    Shapes ``[..., K] -> [..., K]``; the gradient at 0 is the identity. METHODS.md 5.8.
    """
    return tangent * _tanhc(r * _squared_norm(tangent))


def clip_tangent(tangent: Tensor, *, r: float, limit: float = MAX_TANGENT) -> Tensor:
    """Shorten tangent vectors longer than ``limit / sqrt(r)`` to that length; ``r = 0`` clips nothing."""
    if r == 0.0:
        return tangent
    squared = r * _squared_norm(tangent)
    over = squared > limit * limit
    factor = limit * torch.rsqrt(torch.where(over, squared, torch.ones_like(squared)))
    return torch.where(over, tangent * factor, tangent)


def clipped_share(tangent: Tensor, *, r: float, limit: float = MAX_TANGENT) -> Tensor:
    """Return the share of tangent vectors ``[..., K]`` that ``clip_tangent`` would shorten, a scalar in [0, 1]."""
    return (r * _squared_norm(tangent.detach()) > limit * limit).to(tangent.dtype).mean()


def inside_ball(points: Tensor, *, r: float, margin: float = BALL_MARGIN) -> Tensor:
    """Pull points beyond ``(1 - margin) / sqrt(r)`` back to that radius."""
    return clip_tangent(points, r=r, limit=1.0 - margin)


def margin_share(points: Tensor, *, r: float, margin: float = BALL_MARGIN) -> Tensor:
    """Return the share of points that lie at or beyond the margin, a scalar in [0, 1]; it must be 0 in a sound run."""
    limit = (1.0 - margin) * (1.0 - 1e-6)
    return (r * _squared_norm(points.detach()) >= limit * limit).to(points.dtype).mean()


def distance(u: Tensor, v: Tensor, *, r: float) -> Tensor:
    """Return the geodesic distance of points ``u, v`` ``[..., K]`` (they broadcast): shape ``[...]``.

    ``(2 / sqrt r) asinh(sqrt r ||u - v|| / sqrt((1 - r||u||^2)(1 - r||v||^2)))``, equal to the artanh form but alive in
    fp32 near the boundary, where a clamped artanh has no gradient. At ``r = 0``: ``2 ||u - v||``. The gradient at
    ``u = v`` is 0. METHODS.md 5.8.
    """
    return _distance_from_squares(
        _squared_norm(u - v).squeeze(-1), _squared_norm(u).squeeze(-1), _squared_norm(v).squeeze(-1), r
    )


def pairwise_distance(u: Tensor, v: Tensor, *, r: float) -> Tensor:
    """Return all distances between ``u [B, K]`` and ``v [N, K]``: shape ``[B, N]``.

    One matrix product instead of ``[B, N, K]`` differences, so ``||u - v||^2`` carries a rounding error of about
    1e-7 ||u||^2 in fp32; use ``distance`` where points may coincide and the value near 0 matters.
    """
    uu, vv = _squared_norm(u), _squared_norm(v)
    gap = (uu + vv.transpose(0, 1) - 2.0 * (u @ v.transpose(0, 1))).clamp_min(0.0)
    return _distance_from_squares(gap, uu, vv.transpose(0, 1), r)


def midpoint(points: Tensor, weights: Tensor, *, r: float) -> Tensor:
    """Return weighted Klein midpoints of ball points.

    ``points [N, K]``, ``weights [M, N]`` with non-negative rows: row m of the result ``[M, K]`` is
    ``k / (1 + sqrt(1 - r||k||^2))`` with ``k = sum_i w_mi gamma_i k_i / sum_i w_mi gamma_i``. A row whose weights are
    all 0 gives the origin. Equal weights give the gyromidpoint; ``r = 0`` gives the weighted mean. METHODS.md 5.8.
    """
    squared = r * _squared_norm(points)
    # gamma = (1 + r||u||^2) / (1 - r||u||^2) and gamma k = 2u / (1 - r||u||^2): no difference of near-equal numbers.
    inverse = 1.0 / (1.0 - squared)
    total = weights @ (2.0 * inverse * points)
    mass = weights @ ((1.0 + squared) * inverse)
    klein = total / torch.where(mass > 0, mass, torch.ones_like(mass))
    rest = (1.0 - r * _squared_norm(klein)).clamp_min(torch.finfo(points.dtype).eps)
    return klein / (1.0 + torch.sqrt(rest))


def mobius_add(u: Tensor, v: Tensor, *, r: float) -> Tensor:
    """Return ``u (+) v``, the Moebius sum on the ball, shapes ``[..., K]``; at ``r = 0`` plain addition."""
    uv = (u * v).sum(-1, keepdim=True)
    uu, vv = _squared_norm(u), _squared_norm(v)
    numerator = (1.0 + 2.0 * r * uv + r * vv) * u + (1.0 - r * uu) * v
    return numerator / (1.0 + 2.0 * r * uv + r * r * uu * vv)


def radius(points: Tensor) -> Tensor:
    """Return ``||u||`` of points ``[..., K]``: shape ``[...]``; the gradient at 0 is 0."""
    return _safe_sqrt(_squared_norm(points)).squeeze(-1)


def _distance_from_squares(gap: Tensor, uu: Tensor, vv: Tensor, r: float) -> Tensor:
    room = (1.0 - r * uu) * (1.0 - r * vv)
    # Only points outside the ball (which inside_ball forbids) could make this negative.
    chord = _safe_sqrt(gap / room.clamp_min(torch.finfo(gap.dtype).tiny))
    return 2.0 * chord * _asinhc(math.sqrt(r) * chord)


def _squared_norm(vectors: Tensor) -> Tensor:
    return (vectors * vectors).sum(-1, keepdim=True)


def _safe_sqrt(squared: Tensor) -> Tensor:
    """Square root whose gradient at 0 is 0 instead of infinite."""
    positive = squared > 0
    root = torch.sqrt(torch.where(positive, squared, torch.ones_like(squared)))
    return torch.where(positive, root, torch.zeros_like(squared))


def _tanhc(squared: Tensor) -> Tensor:
    """``tanh(x) / x`` as a function of x^2."""
    small = squared < _SERIES_BELOW
    x = torch.sqrt(torch.where(small, torch.ones_like(squared), squared))
    series = 1.0 - squared * (1.0 / 3.0 - squared * (2.0 / 15.0 - squared * (17.0 / 315.0)))
    return torch.where(small, series, torch.tanh(x) / x)


def _asinhc(x: Tensor) -> Tensor:
    """``asinh(x) / x`` for x >= 0."""
    squared = x * x
    small = squared < _SERIES_BELOW
    safe = torch.where(small, torch.ones_like(x), x)
    series = 1.0 - squared * (1.0 / 6.0 - squared * (3.0 / 40.0 - squared * (15.0 / 336.0)))
    return torch.where(small, series, torch.asinh(safe) / safe)
