"""Heads: logits, level scales, margins, and the round trip through config and tensors."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from hierbench.errors import InputError
from hierbench.models.heads import CosineHead, Head, HyperbolicHead, head_from_config


def test_cosine_head_is_scaled_cosine() -> None:
    head = CosineHead(logit_scale=math.log(14.0))
    embedding, features = 5 * torch.randn(4, 6), torch.randn(3, 6)
    want = 14.0 * torch.nn.functional.cosine_similarity(embedding[:, None], features[None], dim=-1)
    torch.testing.assert_close(head.logits(embedding, head.points(features, 0)), want, rtol=1e-5, atol=1e-5)
    assert torch.equal(head.points(features, 0), head.points(features, 3))
    assert [name for name, _ in head.named_parameters()] == ["logit_scale"]
    assert not head.logit_scale.requires_grad  # a defence that trains it says so


@pytest.mark.parametrize("r", (0.0, 1.0, 2.5))
def test_hyperbolic_logits_follow_the_formula(r: float) -> None:
    """psi(n) = exp0(a_T b_l W h / m_T), logits = -d(exp0(a_I f / m_I), psi) / tau, in NumPy float64."""
    head = HyperbolicHead(levels=3, curvature=r, m_image=2.0, m_text=0.5, tau=0.07)
    with torch.no_grad():
        head.log_a_image.fill_(-0.6)
        head.log_a_text.fill_(-0.9)
        head.level_scale.copy_(torch.tensor([1.1, 0.8, 0.4]))
    head = head.double()
    stream = np.random.default_rng(0)
    embedding, features = stream.normal(size=(4, 5)), 0.3 * stream.normal(size=(3, 5))
    scales = head.level_scale.detach().numpy()
    a_image, a_text = head.log_a_image.exp().item(), head.log_a_text.exp().item()
    tau = float(head.tau)

    def exp0(v: np.ndarray) -> np.ndarray:
        n = np.linalg.norm(v)
        return v if r == 0 else np.tanh(math.sqrt(r) * n) / (math.sqrt(r) * n) * v

    def far(u: np.ndarray, v: np.ndarray) -> float:
        gap = np.linalg.norm(u - v)
        if r == 0:
            return 2 * gap
        room = math.sqrt((1 - r * u @ u) * (1 - r * v @ v))
        return 2 / math.sqrt(r) * math.asinh(math.sqrt(r) * gap / room)

    for steps in (0, 1, 2, 5):
        scale = scales[min(steps, 2)]
        want = [
            [-far(exp0(a_image * f / 2.0), exp0(a_text * scale * t / 0.5)) / tau for t in features] for f in embedding
        ]
        points = head.points(torch.from_numpy(features), steps)
        got = head.logits(torch.from_numpy(embedding), points)
        np.testing.assert_allclose(got.detach().numpy(), want, rtol=1e-6)


def test_start_values() -> None:
    head = HyperbolicHead(levels=3)
    torch.testing.assert_close(head.level_scale.detach(), torch.tensor([1.0, 0.75, 0.5]))
    unit = torch.nn.functional.normalize(torch.randn(5, 4), dim=-1)
    radius = head.image_points(unit).norm(dim=-1)
    torch.testing.assert_close(radius, torch.full((5,), math.tanh(0.5)))  # 0.46
    assert {name for name, _ in head.named_parameters()} == {"log_a_image", "log_a_text", "level_scale"}
    assert {name for name, _ in head.named_buffers()} == {"m_image", "m_text", "tau"}
    torch.testing.assert_close(HyperbolicHead(levels=1).level_scale.detach(), torch.tensor([1.0]))


def test_an_image_keeps_its_own_radius_up_to_the_clip() -> None:
    head = HyperbolicHead(levels=1)
    direction = torch.tensor([[1.0, 0.0]])
    near, far, too_far = (head.image_points(scale * direction).norm() for scale in (0.5, 1.5, 100.0))
    assert near.item() == pytest.approx(math.tanh(0.25))
    assert far.item() == pytest.approx(math.tanh(0.75))
    assert too_far.item() == pytest.approx(math.tanh(2.0))


@pytest.mark.parametrize("head", [CosineHead(logit_scale=3.25), HyperbolicHead(levels=4, curvature=0.5, tau=0.031)])
def test_round_trip(head: Head) -> None:
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(torch.randn_like(parameter))
    copy = head_from_config(json.loads(json.dumps(head.config())))
    copy.load_state_dict(head.state_dict())
    embedding, features = torch.randn(3, 6), torch.randn(5, 6)
    for steps in (0, 2):
        assert torch.equal(
            copy.logits(embedding, copy.points(features, steps)), head.logits(embedding, head.points(features, steps))
        )
    assert copy.config() == head.config()


@pytest.mark.parametrize(
    ("config", "word"),
    [
        ({}, "kind"),
        ({"kind": "conical"}, "conical"),
        ({"kind": "cosine", "levels": 2}, "levels"),
        ({"kind": "hyperbolic", "levels": 2}, "missing"),
        ({**HyperbolicHead(levels=2).config(), "curvature": "round"}, "number"),
        ({**HyperbolicHead(levels=2).config(), "curvature": -1}, "curvature"),
        ({**HyperbolicHead(levels=2).config(), "levels": 0}, "levels"),
        ({**HyperbolicHead(levels=2).config(), "levels": float("inf")}, "number"),
    ],
)
def test_bad_configs_are_named(config: dict[str, object], word: str) -> None:
    with pytest.raises(InputError, match=word):
        head_from_config(config)


@pytest.mark.parametrize("norm", (0.2, 0.6, 0.95))
@pytest.mark.parametrize("r", (0.5, 1.0))
def test_depth_and_margin(norm: float, r: float) -> None:
    """Widest gap of two points at norm n: -d/tau grows without bound, an inner product by n^2, cosine not at all."""
    n = norm / math.sqrt(r)
    u = torch.tensor([[n, 0.0, 0.0]], dtype=torch.float64)
    both = torch.cat([u, -u])
    tau, s = 0.05, 20.0
    ball = HyperbolicHead(levels=1, curvature=r).double()
    ball.tau.fill_(tau)
    logits = ball.point_logits(u, both)[0]
    want = 4 / (tau * math.sqrt(r)) * math.atanh(math.sqrt(r) * n)
    assert float(logits[0] - logits[1]) == pytest.approx(want, rel=1e-12)
    flat = s * (u @ both.T)[0]
    assert float(flat[0] - flat[1]) == pytest.approx(2 * s * n * n, rel=1e-12)
    cosine = CosineHead(logit_scale=math.log(s)).double()
    logits = cosine.logits(u, cosine.points(both, 0))[0]
    assert float(logits[0] - logits[1]) == pytest.approx(2 * s, rel=1e-6)
