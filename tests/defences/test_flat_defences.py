"""The defences that know no tree, against METHODS.md 5 in NumPy float64; and all defences through the trainer.

The formulas below are written from the page, on embeddings and text features, with one loop over the images.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from standin import SmallModel, make_task, mixed_forest, small_images
from torch import Tensor

from hierbench.attacks.threat import ThreatModel
from hierbench.defences import base
from hierbench.defences.base import Batch, Defence, Perturbed
from hierbench.defences.catalogue import DEFENCES, DefenceSpec
from hierbench.defences.methods.clean_ft import CleanFTSettings
from hierbench.defences.methods.fare import FARESettings
from hierbench.defences.perturb import Found, maximise
from hierbench.defences.training.settings import TrainingSettings
from hierbench.defences.training.trainer import RECORD_FILE, TrainingInterruptedError, TrainResult, train
from hierbench.errors import HierbenchError, InputError

Array = npt.NDArray[np.float64]
Values = dict[str, float]

EPS = "16/255"
CLASSES = [0, 1, 2, 5, 6, 8]
"""Some of the digits, so that there are more prompts than classes and a label is not a class's position."""

DEFENDED = ("tecoa", "clean_ft", "pmg_aft", "fare", "agft", "hxe", "soft_labels", "hier_aft")
ELSEWHERE = ("mmcoa", "tga_zsr", "saft")
"""These have their own files of tests, and need more of a model than the small one has."""
KEEPS_ORIGINAL = ("pmg_aft", "fare", "agft")


# -- the formulas -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Seen:
    """What the formulas speak of: embeddings of x' and x by f and by f0, text features, labels, s."""

    now_adversarial: Array
    now_clean: Array
    start_adversarial: Array
    start_clean: Array
    text: Array
    start_text: Array
    """The text features behind p_f0 and q, which are constant."""
    labels: list[int]
    s: float


def cosines(embedding: Array, text: Array) -> Array:
    rows = [[e @ t / (np.linalg.norm(e) * np.linalg.norm(t)) for t in text] for e in embedding]
    return np.array(rows)


def log_shares(z: Array) -> Array:
    top = z.max(axis=-1, keepdims=True)
    out: Array = z - top - np.log(np.exp(z - top).sum(axis=-1, keepdims=True))
    return out


def cross_entropies(z: Array, labels: list[int]) -> list[float]:
    return [-float(row[label]) for row, label in zip(log_shares(z), labels, strict=True)]


def divergences(p: Array, q: Array) -> list[float]:
    """KL(softmax(p) || softmax(q)) of logits, one an image."""
    pairs = zip(log_shares(p), log_shares(q), strict=True)
    return [sum(math.exp(a) * (a - b) for a, b in zip(*pair, strict=True)) for pair in pairs]


def accuracy(z: Array, labels: list[int]) -> float:
    return sum(int(np.argmax(row)) == label for row, label in zip(z, labels, strict=True)) / len(labels)


def clean_ft(seen: Seen) -> tuple[float, Values]:
    """The mean cross-entropy of the images under ``Perturbed``, which its attack leaves clean."""
    value, log = tecoa(seen)
    return value, {"ce_leaf": value, "clean_accuracy": log["adversarial_accuracy"]}


def tecoa(seen: Seen) -> tuple[float, Values]:
    """5.1: CE(s cos(f(x'), g(t)), y)."""
    z = seen.s * cosines(seen.now_adversarial, seen.text)
    mean = sum(cross_entropies(z, seen.labels)) / len(seen.labels)
    return mean, {"ce_leaf": mean, "adversarial_accuracy": accuracy(z, seen.labels)}


def pmg_aft(
    seen: Seen,
    *,
    scale: str = "model",
    kl_reduction: str = "batchmean",
    clean_weight: float = 1.0,
    original_weight: float = 1.0,
) -> tuple[float, Values]:
    """5.2: CE(p_f(x'), y) + KL(p_f0(x') || p_f(x')) + KL(p_f(x) || p_f(x'))."""
    s, count = seen.s if scale == "model" else 1.0, len(seen.labels)
    attacked, clean = s * cosines(seen.now_adversarial, seen.text), s * cosines(seen.now_clean, seen.text)
    original = s * cosines(seen.start_adversarial, seen.start_text)
    entropy = sum(cross_entropies(attacked, seen.labels)) / count
    to_original, to_clean = sum(divergences(original, attacked)), sum(divergences(clean, attacked))
    parts = 1 if kl_reduction == "sum" else count
    total = entropy + original_weight * to_original / parts + clean_weight * to_clean / parts
    return total, {
        "ce_leaf": entropy,
        "kl_original": to_original / count,
        "kl_clean": to_clean / count,
        "adversarial_accuracy": accuracy(attacked, seen.labels),
    }


def fare(seen: Seen) -> tuple[float, Values]:
    """5.3: ||f(x') - f0(x)||^2, not normalised, summed over dimensions, mean over the batch."""
    each = [float(((f - g) ** 2).sum()) for f, g in zip(seen.now_adversarial, seen.start_clean, strict=True)]
    norm = sum(float(np.linalg.norm(g)) for g in seen.start_clean) / len(each)
    return sum(each) / len(each), {"squared_distance": sum(each) / len(each), "target_norm": norm}


def agft(seen: Seen, *, target_factor: float = 0.72, prediction_factor: float = 1.8) -> tuple[float, Values]:
    """5.7: - sum_j q_j log softmax_j(1.8 s cos(f(x'), g(t))), q = softmax(0.72 s cos(f0(x), g(t)))."""
    q = np.exp(log_shares(target_factor * seen.s * cosines(seen.start_clean, seen.start_text)))
    attacked = seen.s * cosines(seen.now_adversarial, seen.text)
    each = [-float(a @ b) for a, b in zip(q, log_shares(prediction_factor * attacked), strict=True)]
    mean = sum(each) / len(each)
    return mean, {
        "soft_cross_entropy": mean,
        "target_confidence": float(q.max(axis=1).mean()),
        "adversarial_accuracy": accuracy(attacked, seen.labels),
    }


FORMULAS: dict[str, Callable[..., tuple[float, Values]]] = {
    "clean_ft": clean_ft,
    "tecoa": tecoa,
    "pmg_aft": pmg_aft,
    "fare": fare,
    "agft": agft,
}


def attacked_sum(name: str, seen: Seen, settings: dict[str, Any]) -> float:
    """What the inner attack maximises, summed over the batch."""
    if name == "pmg_aft":  # the cross-entropy alone, at the scale in use
        s = 1.0 if settings.get("scale") == "one" else seen.s
        return sum(cross_entropies(s * cosines(seen.now_adversarial, seen.text), seen.labels))
    return FORMULAS[name](seen, **settings)[0] * len(seen.labels)


CASES: list[tuple[str, dict[str, Any]]] = [
    ("clean_ft", {}),
    ("tecoa", {}),
    ("pmg_aft", {}),
    ("pmg_aft", {"scale": "one"}),
    ("pmg_aft", {"kl_reduction": "sum"}),
    ("pmg_aft", {"scale": "one", "kl_reduction": "sum"}),
    ("pmg_aft", {"original_weight": 2.5, "clean_weight": 0.4}),
    ("fare", {}),
    ("agft", {}),
    ("agft", {"target_factor": 1.0, "prediction_factor": 1.0}),
    ("agft", {"target_factor": 2.0, "prediction_factor": 0.5}),
]
ATTACKS = [case for case in CASES if case[0] != "clean_ft"]


# -- a defence in the middle of its training --------------------------------------------------------------------------


def moved(model: SmallModel) -> SmallModel:
    """Move the image tower, so that f is no longer f0."""
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for parameter in model.visual.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    return model


@dataclass(frozen=True)
class Scene:
    defence: Any
    model: SmallModel
    batch: Batch
    adversarial: Tensor
    """Some images near the clean ones, not those of an attack."""

    @property
    def text(self) -> Tensor:
        """Features of all prompts, on the graph of a leaf of their own."""
        features: Tensor = self.defence.task.text_features(self.model)
        return features.detach().requires_grad_()

    def seen(self, adversarial: Tensor | None = None, text: Array | None = None) -> Seen:
        start, now, task = SmallModel(double=True), self.model, self.defence.task
        given = self.adversarial if adversarial is None else adversarial
        original = (task.hidden[: len(CLASSES)] @ start.text_projection).detach().numpy()
        return Seen(
            now_adversarial=now.embed(given).detach().numpy(),
            now_clean=now.embed(self.batch.pixels).detach().numpy(),
            start_adversarial=start.embed(given).detach().numpy(),
            start_clean=start.embed(self.batch.pixels).detach().numpy(),
            text=original if text is None else text[: len(CLASSES)],
            start_text=original,
            labels=self.batch.labels.tolist(),
            s=math.exp(2.0),
        )


def scene(name: str, settings: dict[str, Any] | None = None, *, eps: str = EPS, count: int = 9) -> Scene:
    spec = DEFENCES.get(name)
    model = SmallModel(double=True)
    task = make_task(model, mixed_forest(), eps=eps, classes=CLASSES)
    defence = spec.load()(spec.settings_type()(**(settings or {})), task)
    defence.attach(model)
    generator = torch.Generator().manual_seed(5)
    pixels = torch.rand(count, 1, 8, 8, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, len(CLASSES), (count,), generator=generator)
    noise = torch.rand(count, 1, 8, 8, generator=generator, dtype=torch.float64)
    adversarial = (pixels + 0.4 * (noise - 0.5)).clamp(0, 1)
    return Scene(defence, moved(model), Batch(pixels, labels, generator), adversarial)


def slope(function: Callable[[float], float], step: float = 1e-5) -> float:
    """Central difference at 0."""
    return (function(step) - function(-step)) / (2 * step)


def some_direction(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(23), dtype=torch.float64)


# -- losses -----------------------------------------------------------------------------------------------------------


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


# -- inner attacks ----------------------------------------------------------------------------------------------------


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


# -- settings ---------------------------------------------------------------------------------------------------------


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


# -- through the trainer ----------------------------------------------------------------------------------------------

RECIPE: dict[str, Any] = {
    "steps": 6,
    "batch_size": 16,
    "learning_rate": 3e-3,
    "checkpoint_steps": None,
    "prepare_images": 32,
    "log_points": 6,
}


def run(out: Path, name: str, *, model: SmallModel | None = None, **options: Any) -> TrainResult:
    recipe = {**RECIPE, **options.pop("recipe", {})}
    given: Any = model or SmallModel()
    defaults: dict[str, Any] = {
        "images": small_images(),
        "forest": mixed_forest(),
        "template": "a photo of {noun}.",
        "threat": ThreatModel("linf", Fraction(8, 255)),
        "seed": 3,
    }
    return train(name, model=given, out_dir=out, training=TrainingSettings(**recipe), **{**defaults, **options})


def tensors(module: Any) -> dict[str, Tensor]:
    return {name: t.detach().clone() for name, t in module.state_dict().items()}


def bits_equal(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a.cpu(), b.cpu())


def attached(name: str, monkeypatch: pytest.MonkeyPatch) -> list[Defence[Any]]:
    """Collect the defences that the trainer attaches, each after it has taken its copies."""
    seen: list[Defence[Any]] = []
    method = DEFENCES.get(name).load()
    own = method.attach

    def attach(self: Any, model: Any) -> None:
        own(self, model)
        seen.append(self)

    monkeypatch.setattr(method, "attach", attach)
    return seen


def test_every_defence_of_the_catalogue_is_tested_here_or_has_its_own_file() -> None:
    known = set(DEFENCES.names())
    assert set(DEFENDED) <= known
    assert known - {"none", *DEFENDED} <= set(ELSEWHERE)
    ignores = {name for name in DEFENDED if not DEFENCES.get(name).load().adversarial}
    assert ignores == {"clean_ft"}
    for name in DEFENDED:
        assert DEFENCES.get(name).load().name == name


@pytest.mark.parametrize("name", DEFENDED)
def test_training_moves_what_the_defence_trains_and_nothing_else_by_one_bit(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, start = attached(name, monkeypatch), tensors(SmallModel())
    result = run(tmp_path, name, recipe={"learning_rate": 1e-2})
    after, spec = tensors(result.model), DEFENCES.get(name)
    assert result.record["run"]["trains"] == list(spec.trains)
    parameters = {key for key, _ in result.model.named_parameters()}
    if result.model.head.kind != "cosine":
        del start["head.logit_scale"]  # that head was replaced
    for key, tensor in start.items():
        scope = key.split(".", maxsplit=1)[0]
        trains = scope in spec.trains and key in parameters
        assert bits_equal(after[key], tensor) != trains, key
    assert {"visual.1.running_mean", "text_tower.weight", "text_projection"} <= set(start)
    (defence,) = seen
    original = getattr(defence, "original", None)
    assert (original is not None) == (name in KEEPS_ORIGINAL)
    if original is not None:
        kept = tensors(original)
        assert kept.keys() == tensors(SmallModel().visual).keys()
        assert all(bits_equal(tensor, start[f"visual.{key}"]) for key, tensor in kept.items())
        assert not original.training and not any(p.requires_grad for p in original.parameters())
        assert not any("original" in key for key in after)  # f0 is no part of the model


@pytest.mark.parametrize("name", [n for n in DEFENDED if n not in ("tecoa", "hier_aft")])  # those: test_trainer
@pytest.mark.parametrize("stops", [(1,), (2, 3, 5)])
def test_a_stopped_run_goes_on_with_the_original_tower_and_ends_in_the_same_bits(
    name: str, stops: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that took f0 after the checkpoint was read would measure against a half-trained tower."""
    recipe = {"learning_rate": 2e-2}
    seen = attached(name, monkeypatch)
    whole = run(tmp_path / "whole", name, recipe=recipe)
    for stop in stops:
        steps: list[int] = []
        with pytest.raises(TrainingInterruptedError, match=f"step {stop} of 6"):
            run(
                tmp_path / "stopped",
                name,
                recipe=recipe,
                progress=lambda where, steps=steps: steps.append(where.step),
                should_stop=lambda steps=steps, stop=stop: steps[-1] == stop,
            )
    resumed = run(tmp_path / "stopped", name, recipe=recipe)
    want, got = tensors(whole.model), tensors(resumed.model)
    assert want.keys() == got.keys() and all(bits_equal(got[key], want[key]) for key in want)
    assert resumed.record["run"]["curve"] == whole.record["run"]["curve"]
    assert resumed.record["run"]["resumes"] == len(stops)
    if name in KEEPS_ORIGINAL:
        pixels = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(1))
        answers = [whole.model.embed(pixels, tower=defence.original) for defence in seen]  # type: ignore[attr-defined]
        assert len(answers) == len(stops) + 2
        assert all(bits_equal(answer, answers[0]) for answer in answers)
        torch.testing.assert_close(answers[0], SmallModel().embed(pixels).detach())
        assert not torch.allclose(whole.model.embed(pixels), answers[0], atol=1e-2)


@pytest.mark.parametrize("name", [name for name in DEFENDED if name != "clean_ft"])
def test_the_trainer_refuses_a_variant_that_trains_nothing_or_has_no_attack(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = DEFENCES.get(name).load()

    class Blind(method):  # type: ignore[valid-type, misc]
        """Its loss looks at the clean images."""

        def loss(self, model: Any, batch: Batch, perturbed: Perturbed, text: Tensor) -> Any:
            return super().loss(model, batch, Perturbed(batch.pixels), text)

    class Still(method):  # type: ignore[valid-type, misc]
        """Its attack returns the clean images."""

        def perturb(self, model: Any, batch: Batch, text: Tensor) -> Perturbed:
            return Perturbed(batch.pixels.clone())

    class Idle(method):  # type: ignore[valid-type, misc]
        """It trains nothing."""

        trains = ()

    class Cut(method):  # type: ignore[valid-type, misc]
        """Its loss reaches the images but not the weights."""

        def loss(self, model: Any, batch: Batch, perturbed: Perturbed, text: Tensor) -> Any:
            return perturbed.pixels.square().mean(), {}

    variants = {
        Blind: "does not depend on the adversarial images",
        Still: "did not move the images",
        Idle: "trains nothing",
        Cut: f"'{DEFENCES.get(name).trains[0]}', but its loss has no gradient",
    }
    for variant, words in variants.items():
        monkeypatch.setattr(DefenceSpec, "load", lambda self, variant=variant: variant)
        with pytest.raises(HierbenchError, match=words):
            run(tmp_path / variant.__name__, name)


def test_clean_fine_tuning_is_accepted_though_it_attacks_nothing(tmp_path: Path) -> None:
    result = run(tmp_path, "clean_ft", recipe={"steps": 40, "learning_rate": 2e-2, "augmentation": "none"})
    done = json.loads((tmp_path / RECORD_FILE).read_text())["run"]
    assert done["checks"]["loss_uses_attack"] is False and done["trains"] == ["visual"]
    assert (done["forwards"], done["backwards"]) == (40 * 16, 40 * 16)
    curve = done["curve"]
    assert "attack_gain" not in curve[0] and curve[-1]["ce_leaf"] < 0.7 * curve[0]["ce_leaf"]
    assert curve[-1]["clean_accuracy"] > curve[0]["clean_accuracy"]
    assert result.record["given"]["settings"]["attack_steps"] == 0


def test_clean_fine_tuning_leaves_the_images_alone_but_gives_the_trainer_its_own_copy() -> None:
    s = scene("clean_ft")
    kept = s.batch.pixels.clone()
    found = s.defence.perturb(s.model, s.batch, s.text.detach())
    assert torch.equal(found.pixels, kept) and found.pixels is not s.batch.pixels
    assert found.pixels.data_ptr() != s.batch.pixels.data_ptr()
    assert (found.cost.forwards, found.cost.backwards, found.gain, found.text) == (0, 0, None, None)


@pytest.mark.parametrize("name", ["clean_ft", "tecoa"])
def test_the_text_projection_trains_where_the_ablation_says_so(name: str, tmp_path: Path) -> None:
    settings: Any = DEFENCES.get(name).settings_type()
    result = run(tmp_path, name, settings=settings(train_text_projection=True))
    start = tensors(SmallModel())
    assert not bits_equal(tensors(result.model)["text_projection"], start["text_projection"])
    assert bits_equal(tensors(result.model)["text_tower.weight"], start["text_tower.weight"])
    assert result.record["run"]["trains"] == ["visual", "text_projection"]
    assert CleanFTSettings().train_text_projection is False


@pytest.mark.parametrize("name", ["pmg_aft", "fare", "agft", "hxe", "soft_labels"])
def test_a_few_steps_of_training_lower_the_loss_under_attack(name: str, tmp_path: Path) -> None:
    recipe = {"steps": 30, "learning_rate": 2e-2, "augmentation": "none", "log_points": 6}
    curve = run(tmp_path, name, recipe=recipe).record["run"]["curve"]
    assert curve[-1]["loss"] < 0.9 * curve[0]["loss"]
    assert all(point["attack_gain"] > 0 for point in curve)
