"""The losses of the defences that know no tree, against METHODS.md 5 in NumPy float64."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from flat_formulas import CASES, CLASSES, FORMULAS, KEEPS_ORIGINAL, pmg_aft, scene, slope, some_direction

from hierbench.defences.base import Perturbed


@pytest.mark.parametrize(("name", "settings"), CASES)
def test_the_loss_and_its_log_are_those_of_the_formula(name: str, settings: dict[str, Any]) -> None:
    s = scene(name, settings)
    loss, log = s.defence.loss(s.model, s.batch, Perturbed(s.adversarial), s.text)
    want, want_log = FORMULAS[name](s.seen(), **settings)
    assert loss.shape == () and loss.requires_grad
    assert float(loss.detach()) == pytest.approx(want, rel=1e-9)
    assert set(log) == set(want_log) and not any(value.requires_grad for value in log.values())
    assert {key: float(value) for key, value in log.items()} == pytest.approx(want_log, rel=1e-6)


@pytest.mark.parametrize(("name", "settings"), CASES)
def test_the_weights_follow_the_formula_with_f0_constant(name: str, settings: dict[str, Any]) -> None:
    """The gradient of f's weights; a detached target, or one that is not and should be, shows as another slope."""
    s = scene(name, settings)
    loss, _ = s.defence.loss(s.model, s.batch, Perturbed(s.adversarial), s.text)
    weights = list(s.model.visual.parameters())
    gradients = torch.autograd.grad(loss, weights)
    ways = [some_direction(*w.shape) for w in weights]
    kept = [w.detach().clone() for w in weights]

    def value(step: float) -> float:
        with torch.no_grad():
            for weight, start, way in zip(weights, kept, ways, strict=True):
                weight.copy_(start + step * way)
        return FORMULAS[name](s.seen(), **settings)[0]

    along = sum(float((g * way).sum()) for g, way in zip(gradients, ways, strict=True))
    assert along == pytest.approx(slope(value), rel=1e-5) and abs(along) > 1e-3


@pytest.mark.parametrize(("name", "settings"), CASES)
def test_text_features_that_train_reach_the_prediction_and_no_constant_target(
    name: str, settings: dict[str, Any]
) -> None:
    s = scene(name, settings)
    text = s.text
    loss, _ = s.defence.loss(s.model, s.batch, Perturbed(s.adversarial), text)
    (gradient,) = torch.autograd.grad(loss, text, allow_unused=True)
    if name == "fare":
        assert gradient is None
        return
    way = some_direction(*text.shape)

    def value(step: float) -> float:
        return FORMULAS[name](s.seen(text=(text + step * way).detach().numpy()), **settings)[0]

    assert float((gradient * way).sum()) == pytest.approx(slope(value), rel=1e-5)
    assert not bool(gradient[len(CLASSES) :].any()) and bool(gradient[: len(CLASSES)].any())


def test_pmg_aft_clean_answers_are_a_target_that_moves() -> None:
    """The divergence to p_f(x) alone, by the clean images: a detached target would have no slope there."""
    settings = {"original_weight": 0.0}
    s = scene("pmg_aft", settings)
    clean = s.batch.pixels.clone().requires_grad_()
    loss, _ = s.defence.loss(s.model, replace(s.batch, pixels=clean), Perturbed(s.adversarial), s.text)
    (gradient,) = torch.autograd.grad(loss, clean)
    way = some_direction(*clean.shape)

    def value(step: float) -> float:
        there = replace(s, batch=replace(s.batch, pixels=(clean + step * way).detach()))
        return pmg_aft(there.seen(), **settings)[0]

    along = float((gradient * way).sum())
    assert along == pytest.approx(slope(value), rel=1e-5) and abs(along) > 1e-3


@pytest.mark.parametrize("name", KEEPS_ORIGINAL)
def test_nothing_flows_into_f0(name: str) -> None:
    s = scene(name)
    clean, attacked = s.batch.pixels.clone().requires_grad_(), s.adversarial.clone().requires_grad_()
    loss, _ = s.defence.loss(s.model, replace(s.batch, pixels=clean), Perturbed(attacked), s.text)
    loss.backward()
    assert attacked.grad is not None and bool(attacked.grad.any())
    assert (clean.grad is not None) == (name == "pmg_aft")  # its p_f(x), not f0
    assert all(p.grad is None for p in s.defence.original.parameters())
    assert not s.defence.original.training
