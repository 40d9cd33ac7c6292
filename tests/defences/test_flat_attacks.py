"""The inner attacks of the defences that know no tree, and the settings that they take."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import pytest
import torch
from flat_formulas import (
    CASES,
    CLASSES,
    DEFENDED,
    FORMULAS,
    Seen,
    cosines,
    cross_entropies,
    scene,
    slope,
    some_direction,
)
from torch import Tensor

from hierbench.attacks.threat import ThreatModel
from hierbench.defences import base
from hierbench.defences.catalogue import DEFENCES
from hierbench.defences.methods.fare import FARESettings
from hierbench.defences.perturb import Found, maximise
from hierbench.errors import InputError


def attacked_sum(name: str, seen: Seen, settings: dict[str, Any]) -> float:
    """What the inner attack maximises, summed over the batch."""
    if name == "pmg_aft":  # the cross-entropy alone, at the scale in use
        s = 1.0 if settings.get("scale") == "one" else seen.s
        return sum(cross_entropies(s * cosines(seen.now_adversarial, seen.text), seen.labels))
    return FORMULAS[name](seen, **settings)[0] * len(seen.labels)


ATTACKS = [case for case in CASES if case[0] != "clean_ft"]


@dataclass
class Watched:
    """What ``maximise`` was given."""

    objective: Any = None
    images: Any = None
    rest: Any = None
    found: Any = None


def watch(monkeypatch: pytest.MonkeyPatch) -> Watched:
    watched = Watched()

    def spy(objective: Any, images: Tensor, **rest: Any) -> Found:
        watched.objective, watched.images, watched.rest = objective, images, rest
        watched.found = maximise(objective, images, **rest)
        return watched.found

    monkeypatch.setattr(base, "maximise", spy)
    return watched


@pytest.mark.parametrize(("name", "settings"), ATTACKS)
def test_the_attack_maximises_exactly_what_the_page_says(
    name: str, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The objective that the ascent is given, summed over the batch, and its slope; at points of our choosing."""
    s, watched = scene(name, settings), watch(monkeypatch)
    text = s.text.detach()
    perturbed = s.defence.perturb(s.model, s.batch, text)
    assert torch.equal(perturbed.pixels, watched.found.pixels) and perturbed.gain is watched.found.gain
    assert watched.images is s.batch.pixels and watched.rest["generator"] is s.batch.generator
    assert perturbed.cost == watched.found.cost and perturbed.text is None and perturbed.others == ()
    way = some_direction(*s.adversarial.shape)
    points = s.adversarial.clone().requires_grad_()
    value = watched.objective(points, None)
    assert float(value.detach()) == pytest.approx(attacked_sum(name, s.seen(), settings), rel=1e-9)
    direct = s.defence.inner_objective(s.model, points, s.batch, text)
    assert float(direct.detach()) == float(value.detach())
    (gradient,) = torch.autograd.grad(value, points)
    wanted = slope(lambda step: attacked_sum(name, s.seen((s.adversarial + step * way).detach()), settings))
    assert float((gradient * way).sum()) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("name", [name for name in DEFENDED if name not in ("clean_ft", "hier_aft")])
@pytest.mark.parametrize("eps", ["1/255", "16/255"])
def test_attacks_have_their_published_budget(name: str, eps: str, monkeypatch: pytest.MonkeyPatch) -> None:
    s, watched = scene(name, eps=eps), watch(monkeypatch)
    s.defence.perturb(s.model, s.batch, s.text.detach())
    attack, size = watched.rest["attack"], float(Fraction(eps))
    if name == "fare":
        assert (attack.steps, attack.alpha) == (10, pytest.approx(size / 4))
    else:
        assert (attack.steps, attack.alpha) == (2, pytest.approx(size))
    assert watched.rest["threat"] == ThreatModel("linf", Fraction(eps))
    assert watched.rest.get("text_shape") is None


@pytest.mark.parametrize("name", [name for name in DEFENDED if name not in ("clean_ft", "hier_aft")])
def test_attacks_raise_what_they_maximise_and_stay_in_the_ball(name: str) -> None:
    s = scene(name, count=24)
    text = s.text.detach()
    found = s.defence.perturb(s.model, s.batch, text)
    assert float((found.pixels - s.batch.pixels).abs().max()) <= 16 / 255 + 1e-9
    assert float(found.pixels.min()) >= 0 and float(found.pixels.max()) <= 1 and not found.pixels.requires_grad
    before = float(s.defence.inner_objective(s.model, s.batch.pixels, s.batch, text).detach())
    after = float(s.defence.inner_objective(s.model, found.pixels, s.batch, text).detach())
    assert after > before and found.gain is not None and float(found.gain) > 0


@pytest.mark.parametrize(
    ("eps", "alpha"),
    [
        ("2/255", 1 / 255),
        ("4/255", 1 / 255),
        ("1/255", 0.25 / 255),
        ("3/255", 0.75 / 255),
        ("8/255", 2 / 255),
        ("16/255", 4 / 255),
    ],
)
def test_fare_steps_by_one_grey_value_at_its_published_radii_and_a_quarter_elsewhere(eps: str, alpha: float) -> None:
    assert FARESettings().alpha(Fraction(eps)) == pytest.approx(alpha, rel=1e-12)
    assert FARESettings(alpha_share=0.5).alpha(Fraction(eps)) == pytest.approx(float(Fraction(eps)) / 2)
    assert scene("fare", eps=eps).defence.inner_attack.alpha == pytest.approx(alpha, rel=1e-12)


def test_each_batch_is_attacked_towards_its_own_target() -> None:
    """FARE and AGFT keep what they computed once a batch; it never outlives the batch."""
    for name in ("fare", "agft"):
        s = scene(name)
        text = s.text.detach()
        s.defence.perturb(s.model, s.batch, text)
        later = replace(s.batch, pixels=s.batch.pixels.flip(0))
        s.defence.perturb(s.model, later, text)
        other = replace(s, batch=later)
        got = float(s.defence.inner_objective(s.model, s.adversarial, later, text).detach())
        assert got == pytest.approx(attacked_sum(name, other.seen(), {}), rel=1e-9)
        assert got != pytest.approx(attacked_sum(name, s.seen(), {}), rel=1e-3)


@pytest.mark.parametrize("name", ["fare", "agft"])
def test_without_labels_means_without_labels(name: str) -> None:
    s = scene(name)
    other = replace(s.batch, labels=(s.batch.labels + 1) % len(CLASSES))
    found = []
    for batch in (s.batch, other):
        batch = replace(batch, generator=torch.Generator().manual_seed(2))
        perturbed = s.defence.perturb(s.model, batch, s.text.detach())
        found.append((perturbed.pixels, s.defence.loss(s.model, batch, perturbed, s.text)[0].detach()))
    assert torch.equal(found[0][0], found[1][0]) and torch.equal(found[0][1], found[1][1])


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("pmg_aft", {"scale": "two"}, "scale = 'two': choose 'model' or 'one'"),
        ("pmg_aft", {"kl_reduction": "mean"}, "kl_reduction"),
        ("pmg_aft", {"clean_weight": -0.1}, "clean_weight = -0.1: it should be 0 or more"),
        ("pmg_aft", {"original_weight": -1.0}, "original_weight"),
        ("agft", {"target_factor": 0.0}, "target_factor = 0.0: it should be above 0"),
        ("agft", {"prediction_factor": -1.8}, "prediction_factor"),
        ("clean_ft", {"attack_steps": 2}, "attack_steps = 2: clean_ft attacks nothing"),
        ("fare", {"attack_steps": 0}, "attack_steps = 0: it should be 1 or more"),
        ("fare", {"alpha_share": -1.0}, "alpha_share"),
        ("hxe", {"decay": -0.1}, "decay = -0.1: it should be 0 or more"),
        ("soft_labels", {"sharpness": 0.0}, "sharpness = 0.0: it should be above 0"),
    ],
)
def test_settings_that_make_no_sense_are_one_clear_line(name: str, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        DEFENCES.get(name).settings_type()(**settings)
    assert "\n" not in str(caught.value)


def test_published_constants_are_the_defaults() -> None:
    values = {name: DEFENCES.get(name).settings_type()().as_dict() for name in DEFENDED}
    assert values["pmg_aft"] == {
        "attack_steps": 2,
        "alpha_share": 1.0,
        "scale": "model",
        "kl_reduction": "batchmean",
        "clean_weight": 1.0,
        "original_weight": 1.0,
    }
    assert values["fare"] == {"attack_steps": 10, "alpha_share": None}
    assert values["agft"] == {"attack_steps": 2, "alpha_share": 1.0, "target_factor": 0.72, "prediction_factor": 1.8}
    assert values["hxe"] == {"attack_steps": 2, "alpha_share": 1.0, "decay": 0.1}
    assert values["soft_labels"] == {"attack_steps": 2, "alpha_share": 1.0, "sharpness": 10.0}
    for settings in values.values():
        json.dumps(settings)
