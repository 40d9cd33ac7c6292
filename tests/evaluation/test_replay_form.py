"""The two forms of a stored adversarial image: exact, or on the grid of 8 bits and inside the ball."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from hierbench.attacks.threat import ThreatModel
from hierbench.evaluation.replay.form import decode, delta_type, encode, outside

pytestmark = pytest.mark.usefixtures("one_thread")


pixel_rows = st.lists(st.integers(0, 255), min_size=4, max_size=4)
shifts = st.lists(st.floats(-1, 1, width=32), min_size=4, max_size=4)
radii = st.sampled_from(["1/255", "8/255", "1/3", "200/255", "1/1000"])


def pair(levels: list[int], shift: list[float], threat: ThreatModel) -> tuple[Tensor, Tensor]:
    clean = torch.tensor(levels, dtype=torch.uint8).view(1, 1, 2, 2)
    moved = clean.float() / 255 + torch.tensor(shift, dtype=torch.float32).view(1, 1, 2, 2)
    return clean, threat.project(moved, clean.float() / 255)


@given(pixel_rows, shifts, radii, st.sampled_from(["linf", "l2"]))
def test_float_gives_back_the_very_bits(levels: list[int], shift: list[float], eps: str, norm: Any) -> None:
    threat = ThreatModel(norm, Fraction(eps))
    clean, adversarial = pair(levels, shift, threat)
    back = decode(encode(adversarial, clean, form="float", threat=threat), clean, form="float")
    assert back.numpy().tobytes() == adversarial.numpy().tobytes()


def test_a_float_difference_would_lose_bits() -> None:
    """The reason for storing bit patterns: a pixel that is nearly 0 beside one that is not."""
    clean = torch.full((1, 1, 1, 2), 30, dtype=torch.uint8)
    still = clean.float() / 255
    moved = torch.tensor([[[[1e-7, -0.0]]]])
    assert not torch.equal(still + (moved - still), moved)
    threat = ThreatModel("linf", Fraction(1, 5))
    back = decode(encode(moved, clean, form="float", threat=threat), clean, form="float")
    assert back.numpy().tobytes() == moved.numpy().tobytes()


@given(pixel_rows, shifts, radii, st.sampled_from(["linf", "l2"]))
def test_8_bit_is_on_the_grid_in_box_and_ball_and_near(
    levels: list[int], shift: list[float], eps: str, norm: Any
) -> None:
    threat = ThreatModel(norm, Fraction(eps))
    clean, adversarial = pair(levels, shift, threat)
    deltas = encode(adversarial, clean, form="8bit", threat=threat)
    assert deltas.dtype == delta_type("8bit", threat)
    image = decode(deltas, clean, form="8bit")
    grid = clean.numpy().astype(int) + deltas
    assert ((grid >= 0) & (grid <= 255)).all()
    assert torch.equal(image, torch.from_numpy(grid).float() / 255)
    exact = [Fraction(int(d), 255) for d in deltas.ravel()]  # in exact arithmetic: no tolerance
    assert max(map(abs, exact)) <= threat.eps if norm == "linf" else sum(d * d for d in exact) <= threat.eps**2
    assert outside(image, clean, threat) == [""]
    off = (image.double() - adversarial.double()).abs().max() * 255
    assert off <= (1.0 if norm == "linf" else 2.0) + 1e-4


def test_8_bit_rounds_to_the_nearest_where_the_ball_allows_it() -> None:
    clean = torch.tensor([[[[100, 100, 100, 0, 255]]]], dtype=torch.uint8)
    moved = clean.float() / 255 + torch.tensor([7.6, 3.4, -7.6, -0.4, 0.4]) / 255
    for eps, expected in (("8/255", [8, 3, -8, 0, 0]), ("15/510", [7, 3, -7, 0, 0])):
        deltas = encode(moved, clean, form="8bit", threat=ThreatModel("linf", Fraction(eps)))
        assert deltas.ravel().tolist() == expected and deltas.dtype == np.int8


def test_8_bit_in_l2_gives_up_no_more_than_it_must() -> None:
    clean = torch.full((1, 1, 1, 3), 100, dtype=torch.uint8)
    moved = clean.float() / 255 + torch.tensor([2.6, 2.6, 0.2]) / 255
    deltas = encode(moved, clean, form="8bit", threat=ThreatModel("l2", Fraction(37, 2550)))  # 3.7 levels; 3, 3 is 4.2
    assert sorted(deltas.ravel().tolist()) == [0, 2, 3]


def test_large_radii_need_two_bytes() -> None:
    assert delta_type("8bit", ThreatModel("linf", Fraction(127, 255))) == np.int8
    assert delta_type("8bit", ThreatModel("linf", Fraction(128, 255))) == np.int16


@pytest.mark.parametrize(
    ("value", "words"),
    [(float("nan"), "not finite"), (float("inf"), "not finite"), (-0.01, "outside [0, 1]"), (1.5, "outside [0, 1]"),
     (0.9, "0.507843 from its clean image in linf, and eps is 0.100000")],
)  # fmt: skip
def test_what_is_wrong_with_an_image_is_said(value: float, words: str) -> None:
    clean = torch.full((2, 1, 2, 2), 100, dtype=torch.uint8)
    images = clean.float() / 255
    images[1, 0, 1, 1] = value
    fine, wrong = outside(images, clean, ThreatModel("linf", Fraction(1, 10)))
    assert fine == "" and words in wrong
