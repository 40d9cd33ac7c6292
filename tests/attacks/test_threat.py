from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hierbench.attacks.optimisers.pgd import ascend, step_size, uniform_start
from hierbench.attacks.threat import ThreatModel, distances, parse_eps
from hierbench.errors import InputError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("8/255", Fraction(8, 255)),
        (" 8 / 255 ", Fraction(8, 255)),
        ("0.03137", Fraction(3137, 100000)),
        ("0", Fraction(0)),
        ("1", Fraction(1)),
        (".5", Fraction(1, 2)),
        ("1e-2", Fraction(1, 100)),
        (0.5, Fraction(1, 2)),
        (Fraction(4, 255), Fraction(4, 255)),
    ],
)
def test_eps_is_read_exactly(text: object, value: Fraction) -> None:
    assert parse_eps(text) == value


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("4", "did you mean 4/255?"),
        ("255", "did you mean 255/255?"),
        ("300", "above 1"),
        ("9/8", "above 1"),
        ("-1/255", "is not a size"),
        ("8/0", "divides by zero"),
        ("8/255/3", "is not a size"),
        ("nan", "is not a size"),
        ("inf", "is not a size"),
        ("", "is not a size"),
        ("1e999999999", "is not a size"),
        ("1" * 5000, "is not a size"),
        ("__import__('os')", "is not a size"),
    ],
)
def test_eps_that_is_no_eps_is_refused_in_one_line(text: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_eps(text)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_l2_may_pass_one_and_linf_may_not() -> None:
    assert ThreatModel("l2", Fraction(3)).radius == 3.0
    with pytest.raises(InputError, match="above 1"):
        ThreatModel("linf", Fraction(3))
    with pytest.raises(InputError, match="use linf or l2"):
        ThreatModel("l1", Fraction(1))


@pytest.mark.parametrize("norm", ["linf", "l2"])
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), eps=st.integers(1, 255), reach=st.floats(0.01, 100.0))
def test_projection_is_in_ball_and_box_and_leaves_what_is_inside(norm: str, seed: int, eps: int, reach: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    threat = ThreatModel(norm, Fraction(eps, 255))
    images = torch.rand(3, 2, 4, 4, generator=generator)
    moved = threat.project(images + reach * torch.randn(images.shape, generator=generator), images)
    assert float(distances(moved, images, norm=norm).max()) <= threat.radius + 1e-6
    assert float(moved.min()) >= 0.0
    assert float(moved.max()) <= 1.0
    again = threat.project(moved, images)
    assert torch.allclose(again, moved, atol=1e-6)
    if norm == "linf":
        assert torch.equal(again, moved)  # the verified image is the searched one, bit for bit
    assert torch.allclose(threat.project(images, images), images, atol=1e-7)


def test_l2_projection_is_the_nearest_point_of_the_ball() -> None:
    images = torch.full((1, 1, 2, 2), 0.5)
    moved = images + torch.tensor([0.3, 0.4, 0.0, 0.0]).view(1, 1, 2, 2)
    found = ThreatModel("l2", Fraction(1, 4)).project(moved, images)
    assert torch.allclose((found - images).flatten(), torch.tensor([0.15, 0.2, 0.0, 0.0]))


@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30])
def test_l2_direction_has_length_one_at_any_scale(scale: float) -> None:
    gradient = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0)) * scale
    length = ThreatModel("l2", Fraction(1)).direction(gradient).flatten(1).norm(dim=1)
    assert torch.allclose(length, torch.ones(4), atol=1e-5)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_zero_gradient_does_not_move(norm: str) -> None:
    images = torch.rand(2, 1, 3, 3, generator=torch.Generator().manual_seed(1))
    threat = ThreatModel(norm, Fraction(8, 255))
    assert torch.allclose(ascend(images, images, torch.zeros_like(images), threat, 0.1), images)


def test_ascend_is_the_textbook_step() -> None:
    images = torch.full((1, 1, 1, 3), 0.5)
    adversarial = images + torch.tensor([0.02, -0.03, 0.0])
    gradient = torch.tensor([5.0, -0.1, 0.0]).view(1, 1, 1, 3)
    linf = ascend(adversarial, images, gradient, ThreatModel("linf", Fraction(1, 25)), 0.03)
    assert torch.allclose(linf - images, torch.tensor([0.04, -0.04, 0.0]))
    l2 = ascend(images, images, torch.tensor([3.0, 4.0, 0.0]).view(1, 1, 1, 3), ThreatModel("l2", Fraction(1)), 0.1)
    assert torch.allclose(l2 - images, torch.tensor([0.06, 0.08, 0.0]), atol=1e-6)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_uniform_start_fills_the_ball(norm: str) -> None:
    images = torch.full((400, 1, 3, 3), 0.5)
    threat = ThreatModel(norm, Fraction(1, 10))
    start = uniform_start(images, threat, generator=torch.Generator().manual_seed(0))
    reach = distances(start, images, norm=norm) / threat.radius
    assert float(reach.max()) <= 1.0 + 1e-5
    # P(reach <= r) = r**9 in both balls, so the 9th power is uniform.
    assert abs(float((reach**9).mean()) - 0.5) < 0.06
    assert abs(float((start - images).mean())) < 0.01
    same = uniform_start(images, threat, generator=torch.Generator().manual_seed(0))
    assert torch.equal(start, same)


@pytest.mark.parametrize(
    ("norm", "alpha", "steps", "size"),
    [
        ("linf", "auto", 20, 2 / 255),
        ("l2", "auto", 20, 2.5 * 8 / 255 / 20),
        ("linf", "eps", 20, 8 / 255),
        ("linf", "eps/8", 20, 1 / 255),
        ("l2", "eps/8", 20, 1 / 255),
        ("linf", "3/255", 20, 3 / 255),
        ("linf", "0.01", 20, 0.01),
    ],
)
def test_step_sizes(norm: str, alpha: str, steps: int, size: float) -> None:
    assert step_size(alpha, threat=ThreatModel(norm, Fraction(8, 255)), steps=steps) == pytest.approx(size, abs=1e-12)


@pytest.mark.parametrize("alpha", ["eps/0", "0", "fast", "eps*2", "4", "eps/x", "-1/255"])
def test_step_sizes_that_are_none_are_refused(alpha: str) -> None:
    with pytest.raises(InputError, match="alpha"):
        step_size(alpha, threat=ThreatModel("linf", Fraction(8, 255)), steps=20)
