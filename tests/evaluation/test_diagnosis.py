"""Planted weak spots: each is found or flagged by the check that is meant for it, and a sound model passes them all."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from evaluation.toy_cell import LEVELS
from hierbench.attacks.threat import ThreatModel
from hierbench.errors import InputError
from hierbench.evaluation.diagnosis import Budget, Diagnosis, Subject, diagnose, examine
from hierbench.evaluation.diagnosis_attacks import monotone
from hierbench.models.layout import NodeLayout

BUDGET = Budget(steps=25, targets=3, queries=100, points=4)
MANY_POINTS = dataclasses.replace(BUDGET, points=40)
COUNT = 24
CHECKER = torch.ones(8, 8)
CHECKER[::2, 1::2] = CHECKER[1::2, ::2] = -1.0


pytestmark = pytest.mark.usefixtures("one_thread")


def images(bright: float = 0.12) -> tuple[Tensor, Tensor]:
    """Grey images with one brighter quadrant, their class; of 2 x 2 blocks, so that no checkerboard is in them."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(COUNT) % 4
    small = 0.3 + 0.15 * torch.rand(COUNT, 1, 4, 4, generator=generator)
    for i, label in enumerate(labels.tolist()):
        top, left = divmod(label, 2)
        small[i, 0, 2 * top : 2 * top + 2, 2 * left : 2 * left + 2] += bright
    return small.repeat_interleave(2, 2).repeat_interleave(2, 3), labels


def quadrants(pixels: Tensor) -> Tensor:
    return pixels.unfold(2, 4, 4).unfold(3, 4, 4).mean(dim=(1, 4, 5)).flatten(1)


class Sound(nn.Module):
    """Quadrant means as leaf logits; most of its images fall within the radius."""

    scale = 20.0

    def forward(self, pixels: Tensor) -> Tensor:
        return quadrants(pixels) * self.scale


class HiddenDirection(nn.Module):
    """One way along the checkerboard lies a class that never wins, and the cross-entropy goes there.

    The other way lies one that wins, too far off for the cross-entropy to see.
    """

    def forward(self, pixels: Tensor) -> Tensor:
        own = torch.softmax(quadrants(pixels) * 200, dim=1)
        along = (pixels * CHECKER).mean(dim=(1, 2, 3))[:, None]
        near = own.roll(1, dims=1) * (-1 + 0.5 * torch.tanh(-50 * along))
        far = own.roll(2, dims=1) * (-8 + 160 * along)
        return near + far + own.roll(3, dims=1) * -20


class Island(nn.Module):
    """Falls along the checkerboard close to the image; further away there is neither that slope nor any other."""

    def forward(self, pixels: Tensor) -> Tensor:
        own = torch.softmax(quadrants(pixels.detach()) * 200, dim=1)
        blocks = nn.functional.avg_pool2d(pixels, 2).repeat_interleave(2, 2).repeat_interleave(2, 3)
        far = ((pixels - blocks).abs().mean(dim=(1, 2, 3)) > 0.03)[:, None]
        along = (pixels * CHECKER).mean(dim=(1, 2, 3))[:, None]
        slope = torch.where(far, torch.zeros_like(along), along)
        return own + own.roll(1, dims=1) * 200 * slope


class Reversed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pixels: Tensor) -> Tensor:
        return pixels.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return -gradient


class Made(nn.Module):
    """The sound model behind another function."""

    def __init__(self, logits: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, pixels: Tensor) -> Tensor:
        return self.logits(pixels)


SOUND = Sound()
OWN = torch.Generator()


def quantised(pixels: Tensor) -> Tensor:
    return torch.round(SOUND(pixels) * 4) / 4


def temperature(pixels: Tensor) -> Tensor:
    return SOUND(pixels) * 1e4


def no_gradient(pixels: Tensor) -> Tensor:
    return SOUND(pixels.detach()) + 0 * pixels.sum()


def wrong_gradient(pixels: Tensor) -> Tensor:
    return SOUND(Reversed.apply(pixels))


def needles(pixels: Tensor) -> Tensor:
    """Wrong wherever four pairs of pixels, equal in every clean image, stand in one order; no gradient says so."""
    top = pixels[:, 0, 0]
    bad = (top[:, ::2] < top[:, 1::2]).all(dim=1)[:, None]
    return torch.where(bad, -SOUND(pixels.detach()), SOUND(pixels.detach())) + 0 * pixels.sum()


def stochastic(pixels: Tensor) -> Tensor:
    return SOUND(pixels) + torch.randn(len(pixels), 4)


def stochastic_in_private(pixels: Tensor) -> Tensor:
    return SOUND(pixels) + torch.randn(len(pixels), 4, generator=OWN)


def nan_for_some_images(pixels: Tensor) -> Tensor:
    bad = quadrants(pixels)[:, :1] > 0.5
    return torch.where(bad, torch.nan, SOUND(pixels))


def nan_off_the_images(pixels: Tensor) -> Tensor:
    bad = (pixels[:, 0, 0, 0] < pixels[:, 0, 0, 1])[:, None]  # equal in every clean image
    return torch.where(bad, torch.nan, SOUND(pixels))


def nan_along_the_gradient(pixels: Tensor) -> Tensor:
    """Brighter than any clean image and than chance makes one: only a step along the gradient comes there."""
    bad = quadrants(pixels).amax(dim=1, keepdim=True) > float(quadrants(images()[0]).max()) + 0.03
    return torch.where(bad, torch.nan, SOUND(pixels))


def seeds_torch(pixels: Tensor) -> Tensor:
    torch.manual_seed(0)
    return SOUND(pixels)


def seeds_numpy(pixels: Tensor) -> Tensor:
    np.random.seed(0)
    return SOUND(pixels)


def seeds_python(pixels: Tensor) -> Tensor:
    random.seed(0)
    return SOUND(pixels)


def draws_from_numpy(pixels: Tensor) -> Tensor:
    np.random.rand()
    return SOUND(pixels)


class Normalised(nn.Module):
    """Batch norm in front, in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1)

    def forward(self, pixels: Tensor) -> Tensor:
        return quadrants(self.norm(pixels)) * 4


class Counting(nn.Module):
    """In evaluation mode, and still it keeps a running mean of what it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, pixels: Tensor) -> Tensor:
        self.mean += 0.1 * (pixels.detach().mean() - self.mean)
        return SOUND(pixels)


class Learning(nn.Module):
    """Adapts its weights at test time."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(4), requires_grad=False)

    def forward(self, pixels: Tensor) -> Tensor:
        self.bias += 1e-9
        return SOUND(pixels) + self.bias


def subject(
    forward: Callable[[Tensor], Tensor], *, eps: str = "16/255", bright: float = 0.12, **changes: Any
) -> Subject:
    pixels, labels = images(bright)
    module = forward if isinstance(forward, nn.Module) else Made(forward)
    if not isinstance(module, Normalised):
        module.eval()
    given = Subject(
        name="toy",
        forward=module,
        layout=NodeLayout.from_levels(LEVELS, direct=False),
        images=pixels,
        labels=labels,
        ids=tuple(f"toy-{i}" for i in range(COUNT)),
        threat=ThreatModel("linf", Fraction(eps)),
        depth=2,
        batch_size=8,
    )
    return dataclasses.replace(given, **changes)


SPECIAL: dict[type, dict[str, Any]] = {
    HiddenDirection: {"eps": "20/255", "bright": 0.3},
    Island: {"eps": "12/255", "bright": 0.3},
}


def levels(found: Diagnosis) -> dict[str, str]:
    return {check.name: check.level for check in found.checks}


CHECKS = {
    "attackable", "deterministic", "batch_independent", "finite_loss", "gradient_agreement", "unbounded_eps",
    "monotone_eps", "monotone_steps", "black_box", "random_points", "pgd_apgd_gap", "zero_gradients", "confirmed",
    "rng_untouched", "mode", "buffers", "weights",
}  # fmt: skip


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("depth", [1, 2])
def test_a_sound_model_passes_every_check(norm: Any, depth: int) -> None:
    threat = ThreatModel(norm, Fraction(16, 255) if norm == "linf" else Fraction(3, 5))
    found = examine(subject(SOUND, threat=threat, depth=depth), budget=BUDGET)
    assert levels(found) == dict.fromkeys(CHECKS, "pass")
    assert not found.failed
    for check in found.checks:
        assert check.sentence and check.value and "\n" not in check.sentence


@pytest.mark.parametrize(
    ("weak", "flagged"),
    [
        (HiddenDirection(), {"pgd_apgd_gap": "warn"}),
        (temperature, {"pgd_apgd_gap": "warn", "zero_gradients": "fail"}),
        (quantised, {"zero_gradients": "fail", "black_box": "fail", "unbounded_eps": "fail"}),
        (no_gradient, {"zero_gradients": "fail", "gradient_agreement": "fail", "black_box": "fail"}),
        (wrong_gradient, {"gradient_agreement": "fail", "unbounded_eps": "fail"}),
        (needles, {"random_points": "fail", "zero_gradients": "fail"}),
        (Island(), {"monotone_eps": "fail"}),
        (stochastic, {"deterministic": "fail", "rng_untouched": "fail"}),
        (stochastic_in_private, {"deterministic": "fail"}),
        (nan_for_some_images, {"finite_loss": "fail", "confirmed": "fail"}),
        (nan_off_the_images, {"finite_loss": "fail", "confirmed": "fail"}),
        (nan_along_the_gradient, {"finite_loss": "fail"}),
        (Normalised(), {"mode": "fail", "buffers": "fail", "batch_independent": "fail"}),
        (Counting(), {"buffers": "fail"}),
        (Learning(), {"weights": "fail"}),
        (draws_from_numpy, {"rng_untouched": "fail"}),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__) if not isinstance(value, dict) else "",
)
def test_a_planted_weak_spot_is_flagged(weak: Callable[[Tensor], Tensor], flagged: dict[str, str]) -> None:
    found = levels(
        examine(subject(weak, **SPECIAL.get(type(weak), {})), budget=BUDGET if weak is not needles else MANY_POINTS)
    )
    assert {name: found[name] for name in flagged} == flagged


def test_the_hidden_direction_is_found_and_not_by_pgd() -> None:
    (gap,) = (c for c in examine(subject(HiddenDirection(), **SPECIAL[HiddenDirection]), budget=BUDGET).checks
              if c.name == "pgd_apgd_gap")  # fmt: skip
    assert gap.value == "100.0 points"


@pytest.mark.parametrize(
    ("weak", "name"),
    [(seeds_torch, "torch"), (seeds_numpy, "NumPy"), (seeds_python, "random")],
    ids=["torch", "numpy", "python"],
)
def test_only_the_generator_that_moved_is_flagged(weak: Callable[[Tensor], Tensor], name: str) -> None:
    for seed in (torch.manual_seed, np.random.seed, random.seed):
        seed(0)  # as the model does: its seed must be noticed all the same
    found = examine(subject(weak), budget=BUDGET)
    assert [(c.name, c.value) for c in found.checks if c.level != "pass"] == [("rng_untouched", name)]


def test_the_callers_generators_come_back_from_a_model_that_moves_them() -> None:
    def all_of_them(pixels: Tensor) -> Tensor:
        return seeds_torch(pixels) + seeds_numpy(pixels) + seeds_python(pixels)

    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # type: ignore[index]
    examine(subject(all_of_them), budget=BUDGET)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (np.random.get_state()[1].tolist(), random.getstate())  # type: ignore[index]


@pytest.mark.parametrize(("more", "level"), [(0, "pass"), (1, "pass"), (3, "warn"), (6, "fail")])
def test_a_rise_is_held_against_chance(more: int, level: str) -> None:
    weaker, stronger = np.ones(60, dtype=bool), np.ones(60, dtype=bool)
    stronger[:more] = False
    check = monotone("monotone_steps", "steps", {"5": weaker, "20": stronger})
    assert (check.level, check.value) == (level, f"0.0 % at 5, {100 * more / 60:.1f} % at 20")
    assert monotone("monotone_steps", "steps", {"5": stronger, "20": weaker}).level == "pass"


def test_a_diagnosis_is_the_same_twice_and_without_a_module_it_leaves_out_its_checks() -> None:
    plain = dataclasses.replace(subject(SOUND), forward=SOUND.forward)
    first, second = (examine(plain, budget=BUDGET) for _ in range(2))
    assert first.checks == second.checks
    assert set(levels(first)) == CHECKS - {"mode", "buffers", "weights"}


def test_nothing_to_attack_and_nothing_allowed() -> None:
    pixels, labels = images()
    wrong = subject(SOUND, labels=(labels + 1) % 4)
    assert levels(examine(wrong, budget=BUDGET))["attackable"] == "fail"
    few = subject(SOUND, images=pixels[:6], labels=labels[:6], ids=tuple("abcdef"))
    assert levels(examine(few, budget=BUDGET))["attackable"] == "warn"
    with pytest.raises(InputError, match=r"--eps: 0 allows no change"):
        examine(subject(SOUND, eps="0"), budget=BUDGET)


def test_a_model_by_name_goes_the_whole_way() -> None:
    told: list[str] = []
    found = diagnose("clip", limit=12, budget=Budget(steps=3, targets=1, queries=10, points=1), report=told.append)
    assert not found.failed, [check for check in found.checks if check.level == "fail"]
    assert set(levels(found)) == CHECKS
    assert (found.model, found.dataset, found.samples, found.depth) == ("clip", "digits", 12, 3)
    assert told[0] == "forwards" and len(told) == 9
