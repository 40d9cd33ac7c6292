"""The ball's operations against closed forms in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from hierbench.models import hyperbolic as hyp

CURVATURES = (0.25, 1.0, 4.0)


def ball_points(count: int, r: float, *, seed: int = 0, width: int = 5, largest: float = 0.95) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    direction = torch.nn.functional.normalize(
        torch.randn(count, width, generator=generator, dtype=torch.float64), dim=-1
    )
    size = largest * torch.rand(count, 1, generator=generator, dtype=torch.float64) / math.sqrt(r)
    return direction * size


def mobius_reference(u: np.ndarray, v: np.ndarray, r: float) -> np.ndarray:
    uv, uu, vv = u @ v, u @ u, v @ v
    return ((1 + 2 * r * uv + r * vv) * u + (1 - r * uu) * v) / (1 + 2 * r * uv + r * r * uu * vv)


def artanh_distance(u: np.ndarray, v: np.ndarray, r: float) -> float:
    return 2 / math.sqrt(r) * math.atanh(math.sqrt(r) * float(np.linalg.norm(mobius_reference(-u, v, r))))


@pytest.mark.parametrize("r", CURVATURES)
def test_distance_equals_the_artanh_form(r: float) -> None:
    u, v = ball_points(200, r, seed=1), ball_points(200, r, seed=2)
    want = [artanh_distance(a, b, r) for a, b in zip(u.numpy(), v.numpy(), strict=True)]
    np.testing.assert_allclose(hyp.distance(u, v, r=r).numpy(), want, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(hyp.pairwise_distance(u, v, r=r).diagonal().numpy(), want, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("r", CURVATURES)
def test_distance_is_a_metric_and_from_the_origin_it_is_twice_the_tangent(r: float) -> None:
    u, v, w = (ball_points(50, r, seed=seed) for seed in (3, 4, 5))
    d = lambda a, b: hyp.distance(a, b, r=r)  # noqa: E731
    torch.testing.assert_close(d(u, v), d(v, u), rtol=0, atol=1e-14)
    assert bool((d(u, w) <= d(u, v) + d(v, w) + 1e-12).all())
    tangent = torch.randn(20, 5, dtype=torch.float64)
    origin = torch.zeros_like(tangent)
    torch.testing.assert_close(d(hyp.exp0(tangent, r=r), origin), 2 * tangent.norm(dim=-1), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("r", CURVATURES)
def test_exp0_is_the_closed_form(r: float) -> None:
    tangent = torch.randn(100, 4, dtype=torch.float64) * torch.logspace(-6, 0.5, 100, dtype=torch.float64)[:, None]
    x = math.sqrt(r) * np.linalg.norm(tangent.numpy(), axis=-1, keepdims=True)
    np.testing.assert_allclose(hyp.exp0(tangent, r=r).numpy(), np.tanh(x) / x * tangent.numpy(), rtol=1e-13)


def test_series_meet_the_closed_forms_where_they_take_over() -> None:
    squared = torch.tensor([0.9, 0.999999, 1.000001, 1.1], dtype=torch.float64) * hyp._SERIES_BELOW
    x = squared.sqrt()
    torch.testing.assert_close(hyp._tanhc(squared), torch.tanh(x) / x, rtol=1e-15, atol=1e-15)
    torch.testing.assert_close(hyp._asinhc(x), torch.asinh(x) / x, rtol=1e-15, atol=1e-15)


@pytest.mark.parametrize("r", CURVATURES)
def test_midpoint_of_two_is_the_gyromidpoint(r: float) -> None:
    """m = u (+) 1/2 (x) (-u (+) v): half way along the geodesic."""
    u, v = ball_points(50, r, seed=6), ball_points(50, r, seed=7)
    for a, b in zip(u, v, strict=True):
        step = mobius_reference(-a.numpy(), b.numpy(), r)
        norm = math.sqrt(r) * float(np.linalg.norm(step))
        half = math.tanh(0.5 * math.atanh(norm)) * step / norm
        want = mobius_reference(a.numpy(), half, r)
        got = hyp.midpoint(torch.stack([a, b]), torch.ones(1, 2, dtype=torch.float64), r=r)[0]
        np.testing.assert_allclose(got.numpy(), want, rtol=0, atol=1e-12)


@pytest.mark.parametrize("r", CURVATURES)
def test_midpoint_follows_the_klein_formula(r: float) -> None:
    points = ball_points(7, r, seed=8).numpy()
    weights = np.random.default_rng(0).random((3, 7))
    klein = 2 * points / (1 + r * (points**2).sum(-1, keepdims=True))
    gamma = 1 / np.sqrt(1 - r * (klein**2).sum(-1))
    for row in weights:
        k = (row * gamma) @ klein / (row * gamma).sum()
        want = k / (1 + np.sqrt(1 - r * k @ k))
        got = hyp.midpoint(torch.from_numpy(points), torch.from_numpy(row[None]), r=r)[0]
        np.testing.assert_allclose(got.numpy(), want, rtol=0, atol=1e-12)


@pytest.mark.parametrize("r", CURVATURES)
def test_midpoint_commutes_with_translation(r: float) -> None:
    points, shift = ball_points(6, r, seed=9), ball_points(1, r, seed=10)[0]
    weights = torch.rand(2, 6, dtype=torch.float64)
    moved = hyp.mobius_add(shift, points, r=r)
    want = hyp.mobius_add(shift, hyp.midpoint(points, weights, r=r), r=r)
    torch.testing.assert_close(hyp.midpoint(moved, weights, r=r), want, rtol=0, atol=1e-12)


def test_midpoint_of_nothing_is_the_origin_and_of_one_is_itself() -> None:
    points = ball_points(3, 1.0, seed=11)
    weights = torch.tensor([[0.0, 0, 0], [0, 2, 0]], dtype=torch.float64)
    got = hyp.midpoint(points, weights, r=1.0)
    assert bool((got[0] == 0).all())
    torch.testing.assert_close(got[1], points[1], rtol=0, atol=1e-15)


@pytest.mark.parametrize("r", CURVATURES)
def test_mobius_addition(r: float) -> None:
    u, v = ball_points(20, r, seed=12), ball_points(20, r, seed=13)
    want = [mobius_reference(a, b, r) for a, b in zip(u.numpy(), v.numpy(), strict=True)]
    np.testing.assert_allclose(hyp.mobius_add(u, v, r=r).numpy(), want, atol=1e-15)
    torch.testing.assert_close(hyp.mobius_add(-u, hyp.mobius_add(u, v, r=r), r=r), v, rtol=0, atol=1e-12)


def test_curvature_zero_is_exactly_euclidean() -> None:
    u, v = torch.randn(9, 4), torch.randn(9, 4)
    assert torch.equal(hyp.exp0(u, r=0.0), u)
    assert torch.equal(hyp.clip_tangent(100 * u, r=0.0), 100 * u)
    torch.testing.assert_close(hyp.distance(u, v, r=0.0), 2 * (u - v).norm(dim=-1), rtol=1e-6, atol=0)
    assert torch.equal(hyp.mobius_add(u, v, r=0.0), u + v)
    torch.testing.assert_close(hyp.midpoint(u, torch.ones(1, 9), r=0.0)[0], u.mean(0), rtol=1e-6, atol=1e-6)


def test_small_curvature_tends_to_the_limit() -> None:
    u, v = ball_points(9, 1.0, seed=14), ball_points(9, 1.0, seed=15)
    gaps = [
        float((hyp.distance(hyp.exp0(u, r=r), hyp.exp0(v, r=r), r=r) - hyp.distance(u, v, r=0.0)).abs().max())
        for r in (1e-2, 1e-4, 1e-6)
    ]
    assert gaps[0] > 50 * gaps[1] > 2500 * gaps[2] > 0


@pytest.mark.parametrize("r", (0.0, 1.0))
def test_gradients_in_single_precision_are_finite_where_formulas_divide_by_zero(r: float) -> None:
    u = torch.tensor([[0.3, 0.1], [0.0, 0.0], [0.2, 0.2]], requires_grad=True)
    v = torch.tensor([[0.3, 0.1], [0.0, 0.0], [0.0, 0.0]])
    for value in (
        hyp.distance(u, v, r=r).sum(),
        hyp.pairwise_distance(u, v, r=r).sum(),
        hyp.exp0(u, r=r).sum(),
        hyp.radius(u).sum(),
        hyp.midpoint(u, torch.tensor([[0.0, 1, 0], [0, 0, 0]]), r=r).sum(),
    ):
        (gradient,) = torch.autograd.grad(value, u)
        assert bool(gradient.isfinite().all())
    (at_equal,) = torch.autograd.grad(hyp.distance(u, v, r=r)[0], u)
    assert bool((at_equal == 0).all())
    (identity,) = torch.autograd.grad(hyp.exp0(u, r=r)[1].sum(), u)
    torch.testing.assert_close(identity[1], torch.ones(2))


def test_gradient_lives_near_the_boundary_where_a_clamped_artanh_dies() -> None:
    point = torch.tensor([[1.0 - 3e-7, 0.0]], requires_grad=True)
    target = torch.tensor([[-(1.0 - 3e-7), 0.0]])
    clamped = hyp.mobius_add(-point, target, r=1.0).norm(dim=-1).clamp_max(1 - 1e-5)
    (dead,) = torch.autograd.grad((2 * torch.atanh(clamped)).sum(), point)
    (alive,) = torch.autograd.grad(hyp.distance(point, target, r=1.0).sum(), point)
    assert float(dead.abs().max()) == 0.0
    assert float(alive[0, 0]) > 1e5 and bool(alive.isfinite().all())
    assert float(hyp.distance(point.detach(), target, r=1.0)) > 29  # 4 artanh(1 - 3e-7) = 31.4


def test_distance_matches_float64_in_single_precision_up_to_the_clipping_radius() -> None:
    u, v = ball_points(300, 1.0, seed=16, largest=0.964), ball_points(300, 1.0, seed=17, largest=0.964)
    want = hyp.distance(u, v, r=1.0)
    torch.testing.assert_close(hyp.distance(u.float(), v.float(), r=1.0).double(), want, rtol=2e-5, atol=1e-6)
    got = hyp.pairwise_distance(u.float(), v.float(), r=1.0).diagonal().double()
    torch.testing.assert_close(got, want, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("r", CURVATURES)
def test_clipping(r: float) -> None:
    limit = hyp.MAX_TANGENT / math.sqrt(r)
    tangent = torch.tensor([[3 * limit, 0.0], [0.0, 0.5 * limit]])
    got = hyp.clip_tangent(tangent, r=r)
    torch.testing.assert_close(got, torch.tensor([[limit, 0.0], [0.0, 0.5 * limit]]))
    assert float(hyp.clipped_share(tangent, r=r)) == 0.5
    ball = hyp.exp0(got, r=r)
    assert float(hyp.margin_share(ball, r=r)) == 0.0 and torch.equal(hyp.inside_ball(ball, r=r), ball)
    outside = torch.tensor([[0.9999 / math.sqrt(r), 0.0]])
    held = hyp.inside_ball(outside, r=r)
    torch.testing.assert_close(held.norm() * math.sqrt(r), torch.tensor(1 - hyp.BALL_MARGIN))
    assert float(hyp.margin_share(held, r=r)) == 1.0
