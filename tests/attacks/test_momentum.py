"""PGD with momentum: the recurrence of MI-FGSM, and records that say nothing of it where there is none."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from attack_toys import ids_of, images_of

from hierbench.attacks.catalogue import ATTACKS
from hierbench.attacks.optimisers.base import Visit
from hierbench.attacks.optimisers.noise import NoiseSource
from hierbench.attacks.optimisers.pgd import PGD
from hierbench.attacks.threat import ThreatModel
from hierbench.errors import InputError


def walk(norm: str, momentum: float, gradients: list[torch.Tensor]) -> list[torch.Tensor]:
    """The points that PGD visits from the clean images when it is told these gradients."""
    clean = images_of(len(gradients[0]))
    threat = ThreatModel(norm, Fraction(1, 4))  # type: ignore[arg-type]
    noise = NoiseSource(seed=0, dataset="d", attack="a", sample_ids=tuple(ids_of(len(clean))))
    rows = noise.rows(range(len(clean)), [0] * len(clean))
    pgd = PGD(steps=len(gradients), alpha="1/100", start_at="clean", momentum=momentum)
    query, state = pgd.start(clean, threat, rows)
    points = [query]
    for step, gradient in enumerate(gradients):
        steps = torch.full((len(clean),), step)
        query, state = pgd.advance(Visit(query, clean, threat, torch.zeros(len(clean)), gradient, steps, rows), state)
        points.append(query)
    return points


def told(count: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    shape = images_of(3).shape
    # of very different sizes, so that dividing by the L1 norm shows
    return [10.0**-step * torch.randn(shape, generator=generator) for step in range(count)]


@pytest.mark.parametrize("momentum", [0.5, 1.0])
def test_the_steps_follow_the_recurrence(momentum: float) -> None:
    gradients = told(5)
    clean = images_of(3).double().numpy()
    point, velocity = clean.copy(), np.zeros_like(clean)
    expected = [point]
    for gradient in gradients:
        g = gradient.double().numpy()
        velocity = momentum * velocity + g / np.abs(g).sum(axis=(1, 2, 3), keepdims=True)
        low, high = np.maximum(clean - 0.25, 0), np.minimum(clean + 0.25, 1)
        point = np.clip(point + 0.01 * np.sign(velocity), low, high)
        expected.append(point)
    for found, wanted in zip(walk("linf", momentum, gradients), expected, strict=True):
        np.testing.assert_allclose(found.numpy(), wanted, atol=1e-6)


def test_l2_steps_have_the_step_s_length_along_the_sum() -> None:
    gradients = told(3)
    points = walk("l2", 1.0, gradients)
    moved = (points[1] - points[0]).flatten(1)
    inside = ((points[0] + 0.02 < 1) & (points[0] > 0.02)).flatten(1).all(dim=1)
    assert torch.allclose(moved[inside].norm(dim=1), torch.full((int(inside.sum()),), 0.01), atol=1e-5)


def test_none_is_plain_pgd_and_a_gradient_of_zero_moves_nothing() -> None:
    gradients = told(4)
    plain, kept = walk("linf", 0.0, gradients), walk("linf", 1.0, gradients)
    assert torch.equal(plain[1], kept[1]) and not torch.equal(plain[-1], kept[-1])
    zero = walk("linf", 1.0, [torch.zeros_like(gradients[0])])
    assert torch.equal(zero[0], zero[1])


@pytest.mark.parametrize("name", ["leaf_pgd", "superclass_pgd", "multilevel_pgd", "angular_pgd"])
def test_a_record_states_momentum_only_where_there_is_some(name: str) -> None:
    spec = ATTACKS.get(name)
    assert "momentum" not in spec.stated(spec.settings()) and spec.settings()["momentum"] == 0.0
    assert spec.stated(spec.settings({"momentum": "0.9"}))["momentum"] == 0.9
    assert set(spec.stated(spec.settings())) == set(spec.settings()) - {"momentum"}


@pytest.mark.parametrize("given", [-1, "much", float("nan")])
def test_a_decay_that_is_none_is_refused(given: Any) -> None:
    with pytest.raises(InputError, match="momentum is"):
        ATTACKS.get("leaf_pgd").settings({"momentum": given})
