"""Validation while training: what is measured, that it changes nothing, and what it flags."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from standin import SmallModel, digits_spec, make_task, mixed_forest, small_images
from test_trainer import StoppedError, run, same, stop_at, tensors
from torch import Tensor
from training_pieces import WATCHED, double_model

from hierbench.defences.training.order import stream_key
from hierbench.defences.training.trainer import RECORD_FILE
from hierbench.defences.training.validation import Watch, overfits
from hierbench.errors import InputError


def slow_measure(watch: Watch, model: Any, forest: Any) -> dict[str, float]:
    """Image by image, roll-up from the trees' own maps of leaves to nodes."""
    nodes = watch.task.nodes
    text = torch.nn.functional.normalize(watch.task.hidden[: nodes.num_classes] @ model.text_projection, dim=-1)
    eps = float(watch.task.threat.eps)
    clean, robust = [], []
    for start in range(0, len(watch.pixels), 128):
        pixels = watch.pixels[start : start + 128]
        generator = torch.Generator().manual_seed(stream_key(watch.seed, "validation", start // 128))
        noise = torch.empty_like(pixels).uniform_(-1, 1, generator=generator)
        for place in range(len(pixels)):
            image, label = pixels[place : place + 1], watch.labels[start + place]

            def logits(x: Tensor) -> Tensor:
                return model.head.scale * torch.nn.functional.normalize(model.embed(x), dim=-1) @ text.T

            low, high = (image - eps).clamp(min=0), (image + eps).clamp(max=1)
            point = torch.minimum(torch.maximum(image + eps * noise[place : place + 1], low), high)
            for _ in range(watch.steps):
                point = point.detach().requires_grad_(True)
                value = -torch.log_softmax(logits(point), dim=-1)[0, label]
                (gradient,) = torch.autograd.grad(value, point)
                point = torch.minimum(torch.maximum(point + eps / 4 * gradient.sign(), low), high)
            clean.append(int(logits(image).argmax()))
            robust.append(int(logits(point).argmax()))
    classes = np.array(nodes.classes)
    truth = classes[watch.labels.numpy()]
    found = {}
    for kind, predicted in (("clean", classes[clean]), ("robust", classes[robust])):
        found[f"{kind}/leaf"] = float(np.mean(predicted == truth))
        for tree in forest.trees:
            for depth in range(1, tree.num_depths):
                node = tree.level(depth).leaf_to_node
                if len(set(node[list(nodes.classes)])) > 1:
                    key = f"{kind}/{tree.tree}/{tree.num_depths - depth}"
                    found[key] = float(np.mean(node[predicted] == node[truth]))
    return found


@pytest.mark.parametrize("classes", [None, (0, 2, 3, 5, 6, 9)])
def test_watched_accuracies_are_those_of_a_slow_count(classes: tuple[int, ...] | None) -> None:
    model: Any = double_model()
    model.requires_grad_(False)
    forest = mixed_forest()
    task = make_task(model, forest, eps="16/255", classes=classes)
    images = small_images(count=200, seed=5)
    position = np.full(10, -1)
    position[list(task.nodes.classes)] = np.arange(task.nodes.num_classes)
    kept = images.take(np.flatnonzero(position[images.labels] >= 0))
    pixels = kept.pixels(np.arange(len(kept))).float() / 255
    with torch.no_grad():  # predictions that differ from image to image
        model.visual[5].bias -= model.embed(pixels).mean(0)
    watch = Watch(pixels, torch.from_numpy(position[kept.labels]), task, steps=3, seed=8)
    state = torch.random.get_rng_state()
    found, cost = watch.measure(model)
    assert torch.equal(torch.random.get_rng_state(), state)
    want = slow_measure(watch, model, forest)
    assert found.keys() == want.keys()
    for key in want:
        assert found[key] == pytest.approx(want[key], abs=1e-12), key
    assert want["robust/leaf"] < want["clean/leaf"] <= want["clean/strokes/1"]
    assert (cost.forwards, cost.backwards) == (5 * len(kept), 3 * len(kept))


@pytest.mark.parametrize("name", ["tecoa", "hier_aft"])
def test_being_watched_changes_nothing(tmp_path: Path, name: str) -> None:
    models = [SmallModel(), SmallModel()]
    state = torch.random.get_rng_state()
    unwatched = {**WATCHED, "validation_images": 0}
    plain = run(tmp_path / "plain", name, model=models[0], validation=small_images(seed=9), recipe=unwatched)
    watched = run(tmp_path / "watched", name, model=models[1], validation=small_images(seed=9), recipe=WATCHED)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert same(tensors(watched.model), tensors(plain.model))
    assert watched.record["run"]["curve"] == plain.record["run"]["curve"]
    assert plain.record["run"]["validation"] == [] and plain.record["given"]["validation"] is None
    points = watched.record["run"]["validation"]
    assert [point["step"] for point in points] == [3, 6, 9, 12]
    assert watched.record["run"]["forwards"] - plain.record["run"]["forwards"] == 4 * 30 * (2 + 2)
    assert {"clean/leaf", "robust/leaf", "clean/strokes/1", "robust/strokes/2"} <= set(points[0])


def test_the_last_point_is_of_the_weights_that_training_ends_with(tmp_path: Path) -> None:
    """Counted again from the model that comes back, on the images the order of ``limited`` gives."""
    validation = small_images(seed=9, count=50)
    recipe = {**WATCHED, "ema_decay": 0.5, "fold_batch_norm": False, "steps": 8}
    model = SmallModel()
    result = run(tmp_path, "tecoa", model=model, validation=validation, recipe=recipe, forest=mixed_forest())
    chosen = validation.limited(30)
    task = make_task(model, mixed_forest())
    pixels = chosen.pixels(np.arange(30)).float() / 255
    watch = Watch(pixels, torch.from_numpy(chosen.labels), task, steps=2, seed=3)
    want = slow_measure(watch, model, mixed_forest())
    point = result.record["run"]["validation"][-1]
    assert point.pop("step") == 8 and point == pytest.approx(want)


def test_a_resumed_run_repeats_no_point(tmp_path: Path) -> None:
    options: dict[str, Any] = {"recipe": {**WATCHED, "validation_points": 6}, "validation": small_images(seed=9)}
    whole = run(tmp_path / "whole", "tecoa", **options)
    for stop in (2, 5, 8, 11):
        with pytest.raises(StoppedError):
            run(tmp_path / "killed", "tecoa", **options, progress=stop_at(stop))
    resumed = run(tmp_path / "killed", "tecoa", **options)
    assert [point["step"] for point in resumed.record["run"]["validation"]] == [2, 4, 6, 8, 10, 12]
    assert resumed.record["run"]["validation"] == whole.record["run"]["validation"]
    assert resumed.record["run"]["forwards"] == whole.record["run"]["forwards"]
    again = run(tmp_path / "killed", "tecoa", **options)
    assert again.record["run"]["validation"] == whole.record["run"]["validation"]
    with pytest.raises(InputError, match="validation differs"):
        run(tmp_path / "killed", "tecoa", recipe=options["recipe"], validation=small_images(seed=10, count=70))


def test_validation_images_that_cannot_be_used(tmp_path: Path) -> None:
    other = replace(small_images(), spec=replace(digits_spec(), name="cifar10"))
    with pytest.raises(InputError, match="validation images of cifar10, training images of digits"):
        run(tmp_path, "tecoa", recipe=WATCHED, validation=other)
    with pytest.raises(InputError, match="stop_on_overfitting = True: there are no validation images"):
        run(tmp_path, "tecoa", recipe={"stop_on_overfitting": True})
    with pytest.raises(InputError, match="no validation image of a trained class"):
        run(tmp_path, "tecoa", recipe=WATCHED, validation=small_images(classes=5), classes=[7, 8])
    mixed = run(tmp_path, "tecoa", recipe={**WATCHED, "steps": 4}, validation=small_images(), classes=[1, 7, 8])
    assert all(0 <= point["robust/leaf"] <= 1 for point in mixed.record["run"]["validation"])


def planted(monkeypatch: pytest.MonkeyPatch, robust: list[float]) -> None:
    values = iter(robust)

    def measure(self: Watch, model: Any) -> Any:
        from hierbench.defences.perturb import Cost

        return {"clean/leaf": 0.9, "robust/leaf": next(values)}, Cost()

    monkeypatch.setattr(Watch, "measure", measure)


OVERFITTING = "catastrophic_overfitting"


def test_catastrophic_overfitting_is_flagged_even_if_it_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = {**WATCHED, "validation_points": 6}
    planted(monkeypatch, [0.2, 0.4, 0.15, 0.4, 0.4, 0.4])
    result = run(tmp_path / "a", "tecoa", recipe=recipe, validation=small_images())
    assert result.record["run"]["steps"] == 12 and OVERFITTING in result.record["run"]["guards"]["flags"]
    planted(monkeypatch, [0.2, 0.4, 0.21, 0.4, 0.3, 0.25])
    result = run(tmp_path / "b", "hier_aft", recipe=recipe, validation=small_images())
    assert OVERFITTING not in result.record["run"]["guards"]["flags"]
    planted(monkeypatch, [0.2, 0.4, 0.4, 0.4, 0.3, 0.1])
    result = run(tmp_path / "c", "hier_aft", recipe=recipe, validation=small_images())
    flags = result.record["run"]["guards"]["flags"]
    assert flags.count(OVERFITTING) == 1 and json.loads((tmp_path / "c" / RECORD_FILE).read_text())


@pytest.mark.parametrize("decay", [None, 0.9])
def test_a_run_that_overfits_can_be_stopped_and_stays_stopped(
    tmp_path: Path, decay: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = {**WATCHED, "validation_points": 6, "stop_on_overfitting": True, "ema_decay": decay}
    planted(monkeypatch, [0.2, 0.4, 0.1])
    asked = iter([False] * 5 + [True])  # a stop asked for in the last step comes too late
    first = run(tmp_path, "tecoa", recipe=recipe, validation=small_images(), should_stop=lambda: next(asked))
    assert first.steps == first.record["run"]["steps"] == 6
    assert OVERFITTING in first.record["run"]["guards"]["flags"]
    want = tensors(first.model)
    again = run(tmp_path, "tecoa", recipe=recipe, validation=small_images(), progress=stop_at(7))
    assert again.steps == 6 and same(tensors(again.model), want)
    assert again.record["run"]["validation"] == first.record["run"]["validation"]


@pytest.mark.parametrize(
    ("robust", "collapsed"),
    [([], False), ([0.3], False), ([0.09, 0.01], False), ([0.1, 0.049], True), ([0.1, 0.051], False), ([0.0], False)],
)
def test_what_counts_as_overfitting(robust: list[float], collapsed: bool) -> None:
    assert overfits([{"step": n, "robust/leaf": value} for n, value in enumerate(robust)]) == collapsed
