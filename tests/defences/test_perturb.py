"""Inner attacks: what they maximise, where they stay, and that they leave the model as it was."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from standin import SmallModel, make_task, mixed_forest
from torch import Tensor

from hierbench.attacks.threat import ThreatModel
from hierbench.defences.base import Batch, Perturbed
from hierbench.defences.methods.hier_aft import method as hier_aft
from hierbench.defences.methods.hier_aft.method import HierAFT
from hierbench.defences.methods.hier_aft.settings import HierAFTSettings
from hierbench.defences.methods.tecoa import TeCoA, TeCoASettings
from hierbench.defences.perturb import Found, InnerAttack, maximise, weights_frozen

LINF = ThreatModel("linf", Fraction(16, 255))


def batch_of(count: int, *, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.rand(count, 1, 8, 8, generator=generator)
    return Batch(pixels, torch.randint(0, 10, (count,), generator=generator), generator)


def made(kind: str, threat: ThreatModel = LINF, **settings: Any) -> tuple[SmallModel, Any, Batch]:
    model = SmallModel()
    with torch.no_grad():
        model.visual[-1].weight.mul_(4.0)
    task = replace(make_task(model, mixed_forest()), threat=threat)
    defence = TeCoA(TeCoASettings(**settings), task) if kind == "tecoa" else HierAFT(HierAFTSettings(**settings), task)
    batch = batch_of(24)
    defence.prepare(model, batch)
    return model, defence, batch


def text_of(defence: Any, model: SmallModel) -> Tensor:
    features: Tensor = defence.task.text_features(model)
    return features


@pytest.mark.parametrize("threat", [LINF, ThreatModel("l2", Fraction(1, 2))])
def test_a_linear_objective_is_maximised_at_the_edge_of_both_balls(threat: ThreatModel) -> None:
    images = torch.full((3, 1, 8, 8), 0.5)
    slope, text_slope = torch.randn(1, 1, 8, 8), torch.randn(4, 6)
    calls: list[tuple[Tensor, Tensor]] = []

    def objective(pixels: Tensor, text: Tensor | None) -> Tensor:
        assert text is not None
        calls.append((pixels.detach().clone(), text.detach().clone()))
        return (pixels * slope).sum() + (text * text_slope).sum()

    attack = InnerAttack(steps=5, alpha=threat.radius, text_eps=2e-4, text_alpha=1e-4)
    found = maximise(
        objective, images, attack=attack, threat=threat, generator=torch.Generator().manual_seed(0), text_shape=(4, 6)
    )
    assert len(calls) == 5 and (found.cost.forwards, found.cost.backwards) == (15, 15)
    start, text_start = calls[0]
    assert bool((text_start == 0).all()) and bool((start != images).any())
    assert bool((threat.distances(start, images) <= threat.radius + 1e-6).all())
    assert len({tuple(image.flatten().tolist()) for image in start}) == 3  # each image has its own start
    direction = slope.sign() if threat.norm == "linf" else slope / slope.norm()
    close = 1e-6 if threat.norm == "linf" else 2e-2  # along a normalised gradient the start fades, it does not end
    torch.testing.assert_close(found.pixels, images + threat.radius * direction, atol=close, rtol=0)
    assert found.text is not None
    torch.testing.assert_close(found.text, 2e-4 * text_slope.sign())
    assert float(found.gain) > 0


def test_without_text_budget_no_text_perturbation_is_made() -> None:
    found = maximise(
        lambda pixels, text: pixels.sum() if text is None else torch.zeros(()),
        torch.rand(2, 1, 4, 4),
        attack=InnerAttack(steps=1, alpha=0.1),
        threat=LINF,
        generator=torch.Generator().manual_seed(0),
        text_shape=(4, 6),
    )
    assert found.text is None


def test_weights_are_frozen_inside_and_restored_outside() -> None:
    model = SmallModel()
    model.visual.train()
    model.visual[1].eval()
    trained = [*model.visual.parameters()]
    model.text_projection.requires_grad_(False)
    with pytest.raises(RuntimeError), weights_frozen(model, trained):
        assert not any(module.training for module in model.modules())
        assert not any(p.requires_grad for p in trained)
        raise RuntimeError
    assert model.visual.training and not model.visual[1].training
    assert all(p.requires_grad for p in trained) and not model.text_projection.requires_grad


@pytest.mark.parametrize("kind", ["tecoa", "hier_aft"])
@pytest.mark.parametrize("eps", [Fraction(1, 255), Fraction(16, 255)])
def test_attacks_stay_in_their_balls_and_raise_the_loss(kind: str, eps: Fraction) -> None:
    threat = ThreatModel("linf", eps)
    model, defence, batch = made(kind, threat)
    found = defence.perturb(model, batch, text_of(defence, model))
    assert float((found.pixels - batch.pixels).abs().max()) <= float(eps) + 1e-6
    assert float(found.pixels.min()) >= 0 and float(found.pixels.max()) <= 1
    assert not found.pixels.requires_grad and float(found.gain) > 0
    name = "hita" if kind == "hier_aft" else "ce_leaf"
    clean = defence.loss(model, batch, Perturbed(batch.pixels), text_of(defence, model))[1][name]
    attacked = defence.loss(model, batch, found, text_of(defence, model))[1][name]
    assert float(attacked) > float(clean)
    if kind == "hier_aft":
        assert float(found.text.abs().max()) <= 2e-4 * (1 + 1e-6)
        assert float(found.text.abs().max()) > 1.9e-4
        without_text = defence.loss(model, batch, Perturbed(found.pixels), text_of(defence, model))[1]["hita"]
        assert float(without_text) < float(attacked)
    else:
        assert found.text is None


def test_tecoa_maximises_and_minimises_the_same_cross_entropy() -> None:
    model, defence, batch = made("tecoa")
    features = (defence.task.hidden[:10] @ model.text_projection).detach().double().numpy()
    embedding = model.embed(batch.pixels).detach().double().numpy()
    unit = [x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (embedding, features)]
    logits = np.exp(2.0) * unit[0] @ unit[1].T
    per_image = np.log(np.exp(logits).sum(-1)) - logits[np.arange(24), batch.labels.numpy()]
    objective = defence.inner_objective(model, batch.pixels, batch, text_of(defence, model))
    loss, log = defence.loss(model, batch, Perturbed(batch.pixels), text_of(defence, model))
    assert float(objective.detach()) == pytest.approx(per_image.sum(), rel=1e-5)
    assert float(loss.detach()) == pytest.approx(per_image.mean(), rel=1e-5)
    right = logits.argmax(-1) == batch.labels.numpy()
    assert float(log["adversarial_accuracy"]) == pytest.approx(right.mean())


@pytest.mark.parametrize("perturbation", ["universal", "leaf", "per_level"])
def test_hier_aft_maximises_exactly_the_weighted_cross_entropies(
    perturbation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The objectives given to the attack, against the loss terms that a NumPy reference confirms elsewhere."""
    model, defence, batch = made("hier_aft", perturbation=perturbation)
    objectives: list[Any] = []

    def record(objective: Any, images: Tensor, **rest: Any) -> Found:
        objectives.append(objective)
        return maximise(objective, images, **rest)

    monkeypatch.setattr(hier_aft, "maximise", record)
    found = defence.perturb(model, batch, text_of(defence, model))
    terms = defence.loss(model, batch, Perturbed(found.pixels, found.text), text_of(defence, model))[1]
    values = [float(objective(found.pixels, found.text).detach()) / 24 for objective in objectives]
    levels = [float(value) for name, value in terms.items() if name.startswith("ce/")]
    want = {
        "universal": [float(terms["hita"])],
        "leaf": [float(terms["ce_leaf"])],
        "per_level": [float(terms["ce_leaf"]), *levels],
    }[perturbation]
    assert values == pytest.approx(want, rel=1e-5)
    assert len(levels) == 4 and all(value > 0 for value in values)


def test_per_level_loss_takes_each_level_from_its_own_images() -> None:
    model, defence, batch = made("hier_aft", perturbation="per_level")
    found = defence.perturb(model, batch, text_of(defence, model))
    assert len(found.others) == 4
    got = defence.loss(model, batch, found, text_of(defence, model))[1]
    sets = [(found.pixels, found.text), *found.others]
    each = [defence.loss(model, batch, Perturbed(pixels, text), text_of(defence, model))[1] for pixels, text in sets]
    names = ["ce_leaf", *(name for name in got if name.startswith("ce/"))]
    for name, own in zip(names, each, strict=True):
        assert float(got[name]) == pytest.approx(float(own[name]), rel=1e-5)
    weights = [1.0, *(0.5 * w for w in (0.75, 0.5, 0.75, 0.5))]
    hita = sum(w * float(got[name]) for w, name in zip(weights, names, strict=True))
    assert float(got["hita"]) == pytest.approx(hita, rel=1e-5)


def test_prepared_constants_are_those_of_the_clean_images() -> None:
    """m_I, m_T, tau and zeta_vic from their definitions, in NumPy float64."""
    model = SmallModel()
    embedding = model.embed(batch_of(24).pixels).detach().double().numpy()
    _, defence, batch = made("hier_aft")
    nodes, model = defence.task.nodes, SmallModel()
    defence.prepare(model, batch)
    head: Any = model.head
    features = (defence.task.hidden @ model.text_projection).detach().double().numpy()
    m_image = np.linalg.norm(embedding, axis=-1).mean()
    m_text = np.linalg.norm(features, axis=-1).mean()
    assert head.m_image.item() == pytest.approx(m_image, rel=1e-5)
    assert head.m_text.item() == pytest.approx(m_text, rel=1e-5)

    def ball(v: Any) -> Any:
        n = np.linalg.norm(v, axis=-1, keepdims=True)
        return np.tanh(n) / n * v

    u, v = ball(0.5 * embedding / m_image), ball(0.5 * features[: nodes.num_classes] / m_text)
    gap = np.linalg.norm(u[:, None] - v[None], axis=-1)
    room = np.sqrt((1 - (u**2).sum(-1))[:, None] * (1 - (v**2).sum(-1))[None])
    far = 2 * np.arcsinh(gap / room)
    unit = [x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (embedding, features[: nodes.num_classes])]
    cos = unit[0] @ unit[1].T
    assert 1 / head.tau.item() == pytest.approx(np.exp(2.0) * cos.std(-1).mean() / far.std(-1).mean(), rel=1e-4)
    own = far[np.arange(24), batch.labels.numpy()]
    assert defence.zeta_vic == pytest.approx(np.quantile(own, 0.25), rel=1e-5)
    assert head.levels == 3 and defence.state() == {"zeta_vic": defence.zeta_vic}


@pytest.mark.parametrize(
    ("settings", "want"),
    [
        ({}, ("visual", "text_projection", "head")),
        ({"train_text_projection": False}, ("visual", "head")),
        ({"train_scalars": False}, ("visual", "text_projection")),
        ({"geometry": "cosine"}, ("visual", "text_projection")),
    ],
)
def test_what_trains(settings: dict[str, Any], want: tuple[str, ...]) -> None:
    _, defence, _ = made("hier_aft", **settings)
    assert defence.trains == want


def test_guards_flag_a_collapsed_geometry() -> None:
    model, defence, batch = made("hier_aft")
    sound = defence.guards(model, {"clipped_images": 0.0, "clipped_texts": 0.0, "at_margin": 0.0})
    assert "clipped" not in sound["flags"] and "ball_margin" not in sound["flags"]
    assert sound["leaf_text_radius_spread"] > 0 and set(sound["text_radius"]) == {
        "leaf",
        "strokes/1",
        "strokes/2",
        "ragged/1",
        "ragged/2",
    }
    head: Any = model.head
    with torch.no_grad():
        head.level_scale.copy_(torch.tensor([0.3, 1.0, 3.0]))
    log = defence.loss(model, batch, Perturbed(batch.pixels), text_of(defence, model))[1]
    found = defence.guards(model, {name: float(value) for name, value in log.items()})
    assert found["norm_order_violated"] > 0.2 and "norm_order" in found["flags"]
    with torch.no_grad():
        head.log_a_image.fill_(3.0)
    log = defence.loss(model, batch, Perturbed(batch.pixels), text_of(defence, model))[1]
    assert float(log["clipped_images"]) == 1.0 and float(log["at_margin"]) == 0.0
    found = defence.guards(model, {name: float(value) for name, value in log.items()})
    assert "clipped" in found["flags"] and found["recent"]["vic"] >= 0
