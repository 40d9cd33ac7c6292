"""The recipe's options: batches in parts, averaging, half precision, shots, validation, and all of them at once."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from standin import SmallModel, digits_forest, digits_spec, make_task, mixed_forest, small_images
from test_trainer import StoppedError, run, same, stop_at, tensors
from torch import Tensor

from hierbench.defences.base import Batch, Perturbed
from hierbench.defences.catalogue import DefenceSpec
from hierbench.defences.methods.tecoa import TeCoA
from hierbench.defences.training.order import plan_batches, stream_key
from hierbench.defences.training.run import TrainingRun
from hierbench.defences.training.trainer import RECORD_FILE, TrainProgress, draw_shots
from hierbench.defences.training.validation import Watch, overfits
from hierbench.errors import InputError

PLAIN: dict[str, Any] = {"augmentation": "none", "clip_norm": None}


def double_model() -> SmallModel:
    return SmallModel(double=True)


def close(a: dict[str, Tensor], b: dict[str, Tensor], *, atol: float) -> bool:
    return a.keys() == b.keys() and all(torch.allclose(a[name], b[name], rtol=0, atol=atol) for name in a)


# -- batches in parts -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["clean_ft", "tecoa"])
@pytest.mark.parametrize("parts", [2, 3, 16])
def test_a_batch_in_parts_takes_the_steps_of_the_whole(
    tmp_path: Path, name: str, parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hierbench.defences.perturb.uniform_start", lambda images, *_, **__: images)
    recipe = {**PLAIN, "optimiser": "sgd", "learning_rate": 1e-2, "steps": 4, "log_points": 4}
    whole = run(tmp_path / "whole", name, model=double_model(), recipe=recipe)
    split = run(tmp_path / "split", name, model=double_model(), recipe={**recipe, "accumulate": parts})
    assert close(tensors(split.model), tensors(whole.model), atol=1e-9)
    assert not close(tensors(split.model), tensors(double_model()), atol=1e-4)
    for one, other in zip(split.record["run"]["curve"], whole.record["run"]["curve"], strict=True):
        for key in ("loss", "ce_leaf", "gradient_norm"):
            assert one[key] == pytest.approx(other[key], rel=1e-5), key
    assert split.record["run"]["forwards"] == whole.record["run"]["forwards"]


def test_more_parts_than_images(tmp_path: Path) -> None:
    images = small_images(count=5, classes=5)
    recipe = {**PLAIN, "steps": 3, "log_points": 3}
    whole = run(tmp_path / "whole", "clean_ft", model=double_model(), images=images, recipe=recipe)
    split = run(tmp_path / "split", "clean_ft", model=double_model(), images=images, recipe={**recipe, "accumulate": 8})
    assert close(tensors(split.model), tensors(whole.model), atol=1e-9)
    assert split.record["run"]["batch_size"] == 5


def test_values_of_uneven_parts_are_weighted_by_their_images(tmp_path: Path) -> None:
    """The first step's loss, by hand, from the plan's own batch: 7 images in parts of 3, 2 and 2."""
    images = small_images(count=7, classes=7)
    recipe = {**PLAIN, "steps": 1, "accumulate": 3, "log_points": 1}
    result = run(tmp_path, "clean_ft", model=double_model(), images=images, recipe=recipe)
    plan = plan_batches(7, batch_size=16, epochs=1, steps=1, seed=3)
    order = plan.batch(0, plan.permutation(0))
    model: Any = double_model()
    text = model.text_hidden(make_task(model, digits_forest()).nodes.prompts[:10]).numpy() @ (
        model.text_projection.detach().numpy()
    )
    with torch.no_grad():
        features = model.embed(images.pixels(order).double() / 255).numpy()
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    scores = np.exp(2.0) * unit @ (text / np.linalg.norm(text, axis=1, keepdims=True)).T
    entropies = np.log(np.exp(scores).sum(1)) - scores[np.arange(7), images.labels[order]]
    point = result.record["run"]["curve"][0]
    assert point["loss"] == pytest.approx(entropies.mean(), rel=1e-5)
    assert abs(np.mean([entropies[:3].mean(), entropies[3:5].mean(), entropies[5:].mean()]) - point["loss"]) > 1e-4
    right = (scores.argmax(1) == images.labels[order]).mean()
    assert point["clean_accuracy"] == pytest.approx(right, rel=1e-5)


@pytest.mark.parametrize(
    ("name", "parts", "compared"), [("hier_aft", 1, 16), ("hier_aft", 3, 6), ("tecoa", 3, None), ("mmcoa", 4, 4)]
)
def test_the_record_says_how_many_images_a_loss_compared(
    tmp_path: Path, name: str, parts: int, compared: int | None
) -> None:
    options: dict[str, Any] = {}
    if name == "mmcoa":
        from hierbench.defences.methods.mmcoa import MMCoASettings

        options = {"settings": MMCoASettings(text_loss=False), "recipe": {"train_scope": "visual"}}
    recipe = {**options.pop("recipe", {}), "steps": 2, "accumulate": parts}
    assert run(tmp_path, name, recipe=recipe, **options).record["run"]["images_compared"] == compared


def test_every_part_of_every_step_has_random_numbers_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds: list[int] = []
    dropouts: list[int] = []
    one_part = TrainingRun._one_part
    manual_seed = torch.manual_seed

    def spy(self: TrainingRun, batch: Batch, **rest: Any) -> Any:
        seeds.append(batch.generator.initial_seed())
        with monkeypatch.context() as patch:
            patch.setattr(torch, "manual_seed", lambda seed: dropouts.append(seed) or manual_seed(seed))
            return one_part(self, batch, **rest)

    monkeypatch.setattr(TrainingRun, "_one_part", spy)
    run(tmp_path / "parts", "tecoa", recipe={"steps": 5, "accumulate": 3})
    assert len(set(seeds)) == len(set(dropouts)) == 15
    assert not set(seeds) & set(dropouts)
    seeds.clear()
    run(tmp_path / "whole", "tecoa", recipe={"steps": 5})
    assert seeds == [stream_key(3, "start", step) for step in range(5)]


# -- averaging --------------------------------------------------------------------------------------------------------


def trajectory(model: SmallModel, out: Path, **options: Any) -> tuple[list[dict[str, np.ndarray]], Any]:
    """Run and return the weights after every step, as the optimiser left them."""
    steps: list[dict[str, np.ndarray]] = []

    def progress(_: TrainProgress) -> None:
        steps.append({name: t.double().numpy().copy() for name, t in tensors(model).items()})

    return steps, run(out, "tecoa", model=model, progress=progress, **options)


def recurrence(steps: list[dict[str, np.ndarray]], decay: float) -> list[dict[str, np.ndarray]]:
    means = [steps[0]]
    for weights in steps[1:]:
        means.append({name: decay * means[-1][name] + (1 - decay) * weights[name] for name in weights})
    return means


def test_the_result_is_the_running_mean_of_the_weights(tmp_path: Path) -> None:
    steps, result = trajectory(SmallModel(), tmp_path / "mean", recipe={"ema_decay": 0.8})
    plain, _ = trajectory(SmallModel(), tmp_path / "plain")
    mean = recurrence(steps, 0.8)[-1]
    for name, value in tensors(result.model).items():
        np.testing.assert_allclose(value.numpy(), mean[name], rtol=0, atol=1e-6, err_msg=name)
        # The mean is kept beside the weights and does not change their way.
        assert all(np.array_equal(one[name], other[name]) for one, other in zip(steps, plain, strict=True)), name
    assert np.abs(steps[-1]["visual.5.weight"] - mean["visual.5.weight"]).max() > 1e-4
    assert torch.equal(result.model.visual[1].running_mean, SmallModel().visual[1].running_mean)


def test_validation_measures_the_mean_and_puts_the_weights_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, Tensor]] = []
    measure = Watch.measure

    def spy(self: Watch, model: Any) -> Any:
        seen.append({name: p.detach().clone() for name, p in model.named_parameters()})
        assert not any(p.requires_grad for p in model.visual.parameters()) and not model.training
        return measure(self, model)

    monkeypatch.setattr(Watch, "measure", spy)
    recipe = {"ema_decay": 0.7, "validation_images": 20, "validation_points": 4, "fold_batch_norm": False}
    watched, result = trajectory(SmallModel(), tmp_path / "a", recipe=recipe, validation=small_images(seed=9))
    plain, unwatched = trajectory(SmallModel(), tmp_path / "b", recipe={**recipe, "validation_images": 0})
    means = recurrence(watched, 0.7)
    assert len(seen) == 4
    for values, step in zip(seen, (3, 6, 9, 12), strict=True):
        for name, value in values.items():
            np.testing.assert_allclose(value.numpy(), means[step - 1][name], rtol=0, atol=1e-6)
    for one, other in zip(watched, plain, strict=True):
        assert all(np.array_equal(one[name], other[name]) for name in one)
    assert same(tensors(result.model), tensors(unwatched.model))


# -- precision --------------------------------------------------------------------------------------------------------


class Observed(TeCoA):
    """Notes the precision of what passes through it."""

    notes: dict[str, set[Any]]

    def note(self, where: str, model: Any, pixels: Tensor, text: Tensor) -> None:
        inside: set[Any] = set()
        handle = model.visual[0].register_forward_hook(lambda _, __, out: inside.add(out.dtype))
        embedding = model.embed(pixels)
        handle.remove()
        logits = model.logits(embedding, model.head.points(text[:10], 0))
        own = {pixels.dtype, text.dtype, embedding.dtype, logits.dtype}
        self.notes.setdefault(where, set()).update(own)
        self.notes.setdefault(f"{where} tower", set()).update(inside)
        self.notes.setdefault(f"{where} autocast", set()).add(torch.is_autocast_enabled("cpu"))

    def inner_objective(self, model: Any, adversarial: Tensor, batch: Batch, text: Tensor) -> Tensor:
        self.note("attack", model, adversarial, text)
        return super().inner_objective(model, adversarial, batch, text)

    def loss(self, model: Any, batch: Batch, perturbed: Perturbed, text: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        self.note("loss", model, perturbed.pixels, text)
        return super().loss(model, batch, perturbed, text)


@pytest.mark.parametrize(("step_in", "attack_in"), [("bf16", "fp32"), ("fp32", "bf16"), ("fp32", "fp32")])
def test_only_the_towers_are_narrow_and_only_where_it_is_said(
    tmp_path: Path, step_in: str, attack_in: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tower = {"fp32": torch.float32, "bf16": torch.bfloat16}
    states: set[torch.dtype] = set()
    step = torch.optim.AdamW.step

    def spy(self: Any, *args: Any, **rest: Any) -> Any:
        out = step(self, *args, **rest)
        states.update(p.dtype for group in self.param_groups for p in group["params"])
        states.update(p.grad.dtype for group in self.param_groups for p in group["params"])
        states.update(v.dtype for state in self.state.values() for v in state.values() if v.ndim)
        return out

    notes: dict[str, set[Any]] = {}
    monkeypatch.setattr(torch.optim.AdamW, "step", spy)
    monkeypatch.setattr(Observed, "notes", notes, raising=False)
    monkeypatch.setattr(DefenceSpec, "load", lambda self: Observed)
    recipe = {"precision": step_in, "attack_precision": attack_in, "ema_decay": 0.9, "steps": 3}
    result = run(tmp_path, "tecoa", recipe=recipe)
    fp32 = {torch.float32}
    assert states == fp32 and {t.dtype for t in result.model.parameters()} == fp32
    assert notes["attack"] == fp32 and notes["attack tower"] == {tower[attack_in]}
    assert notes["loss"] == fp32 and notes["loss tower"] == {tower[step_in]}
    assert notes["attack autocast"] == notes["loss autocast"] == {False}
    assert result.record["run"]["precision"] == {"weights_step": step_in, "attack": attack_in}
    assert "embed" not in result.model.__dict__


@pytest.mark.parametrize("name", ["tecoa", "hier_aft"])
def test_bf16_is_close_to_fp32_and_resumes_in_the_same_bits(tmp_path: Path, name: str) -> None:
    recipe = {"precision": "bf16", "attack_precision": "bf16", "log_points": 12}
    wide = run(tmp_path / "wide", name, recipe={"log_points": 12})
    narrow = run(tmp_path / "narrow", name, recipe=recipe)
    for one, other in zip(narrow.record["run"]["curve"], wide.record["run"]["curve"], strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=0.02)
    assert not same(tensors(narrow.model), tensors(wide.model))
    with pytest.raises(StoppedError):
        run(tmp_path / "killed", name, recipe=recipe, progress=stop_at(7))
    assert same(tensors(run(tmp_path / "killed", name, recipe=recipe).model), tensors(narrow.model))


def test_fp16_without_cuda_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="precision = 'fp16': it needs CUDA, not cpu; choose bf16 or fp32") as caught:
        run(tmp_path, "tecoa", recipe={"precision": "fp16"})
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


def test_steps_that_overflow_are_left_out_and_the_scale_survives_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fp16 needs a GPU, but its loss scaling can be tried anywhere: here from a scale that is far too large."""
    scaler = torch.amp.GradScaler
    monkeypatch.setattr(torch.amp, "GradScaler", lambda kind, enabled: scaler(kind, init_scale=2.0**127))
    recipe = {"log_points": 12, "checkpoint_steps": 1}
    steps, whole = trajectory(SmallModel(), tmp_path / "whole", recipe=recipe)
    curve = whole.record["run"]["curve"]
    left_out = [point["steps_left_out"] for point in curve]
    assert left_out[0] == 1.0 and left_out[-1] == 0.0 and sorted(left_out, reverse=True) == left_out
    start = {name: t.double().numpy() for name, t in tensors(SmallModel()).items()}
    for place, (before, after) in enumerate(zip([start, *steps], steps, strict=False)):
        stood = all(np.array_equal(before[name], after[name]) for name in after)
        assert stood == bool(left_out[place])
    assert json.loads((tmp_path / "whole" / RECORD_FILE).read_text(), parse_constant=pytest.fail)
    for stop in (1, 3, 9):
        with pytest.raises(StoppedError):
            run(tmp_path / "killed", "tecoa", recipe=recipe, progress=stop_at(stop))
    resumed = run(tmp_path / "killed", "tecoa", recipe=recipe)
    assert same(tensors(resumed.model), tensors(whole.model)) and resumed.record["run"]["curve"] == curve


def test_a_gradient_that_is_no_number_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hierbench.errors import HierbenchError

    class Cliff(TeCoA):
        def loss(self, model: Any, batch: Batch, perturbed: Perturbed, text: Tensor) -> Any:
            loss, log = super().loss(model, batch, perturbed, text)
            return (loss + 0 * (loss * 0).sqrt() if batch.step == 11 else loss), log

    monkeypatch.setattr(DefenceSpec, "load", lambda self: Cliff)
    with pytest.raises(HierbenchError, match="gradient's norm is nan at step 11"):
        run(tmp_path, "tecoa")


# -- shots ------------------------------------------------------------------------------------------------------------


def uneven_images() -> Any:
    images = small_images(count=200)
    kept = np.concatenate([np.flatnonzero(images.labels == label)[: 6 + label] for label in range(10)])
    return images.take(np.random.default_rng(1).permutation(kept))


def test_shots_are_exactly_that_many_of_each_class_and_drawn_by_the_seed() -> None:
    images = uneven_images()
    drawn = draw_shots(images, range(10), shots=5, seed=0)
    assert np.bincount(images.labels[drawn]).tolist() == [5] * 10
    assert (np.diff(drawn) > 0).all()
    assert np.array_equal(drawn, draw_shots(images, range(10), shots=5, seed=0))
    assert not np.array_equal(drawn, draw_shots(images, range(10), shots=5, seed=1))
    # One class's draw does not depend on which others train, and more shots hold the fewer.
    some = draw_shots(images, (2, 7), shots=5, seed=0)
    assert np.array_equal(some, drawn[np.isin(images.labels[drawn], (2, 7))])
    assert set(draw_shots(images, range(10), shots=3, seed=0)) < set(drawn)
    even = small_images(count=200)
    drawn = draw_shots(even, range(10), shots=5, seed=0)
    assert len({tuple(drawn[even.labels[drawn] == label] - label) for label in range(10)}) == 10


@pytest.mark.parametrize("gone", [False, True])
def test_too_few_images_of_a_class_are_named(tmp_path: Path, gone: bool) -> None:
    images = uneven_images()
    if gone:
        images = images.take(np.flatnonzero(images.labels != 4))
    name, count = (digits_spec().classes[4].name, 0) if gone else (digits_spec().classes[0].name, 6)
    with pytest.raises(InputError, match=rf"shots = {5 if gone else 7}: class '{name}' has {count} training images"):
        run(tmp_path, "tecoa", images=images, recipe={"shots": 5 if gone else 7})
    run(tmp_path, "tecoa", images=images, classes=[5, 6, 7], recipe={"shots": 7, "steps": 1})


def test_only_the_shots_are_trained_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = uneven_images()
    drawn: set[int] = set()
    pixels = type(images).pixels
    monkeypatch.setattr(
        type(images),
        "pixels",
        lambda self, indices: drawn.update(np.asarray(indices).tolist()) or pixels(self, indices),
    )
    result = run(tmp_path, "tecoa", images=images, recipe={"shots": 2, "batch_size": 10, "steps": 4})
    assert drawn == set(draw_shots(images, range(10), shots=2, seed=3).tolist())
    assert result.record["run"]["images"] == 20


# -- validation -------------------------------------------------------------------------------------------------------


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


WATCHED: dict[str, Any] = {"validation_images": 30, "validation_points": 4, "validation_steps": 2}


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


# -- all at once ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tecoa", "hier_aft"])
def test_a_run_with_every_option_resumes_in_the_same_bits(tmp_path: Path, name: str) -> None:
    recipe = {
        **WATCHED,
        "optimiser": "adam",
        "precision": "bf16",
        "ema_decay": 0.9,
        "train_scope": "visual",
        "shots": 4,
        "accumulate": 3,
        "validation_points": 5,
        "stop_on_overfitting": True,
        "checkpoint_steps": 1,
        "augmentation": "photo",
    }
    options: dict[str, Any] = {"recipe": recipe, "validation": small_images(seed=9), "forest": mixed_forest()}
    whole = run(tmp_path / "whole", name, **options)
    for stop in range(1, 12, 2):
        with pytest.raises(StoppedError):
            run(tmp_path / "killed", name, **options, progress=stop_at(stop + 1))
    resumed = run(tmp_path / "killed", name, **options)
    assert same(tensors(resumed.model), tensors(whole.model))
    one, other = resumed.record["run"], whole.record["run"]
    for key in set(one) - {"seconds", "resumes"}:
        assert one[key] == other[key], key
    assert one["resumes"] == 6 and one["steps"] == 12 and math.isfinite(one["curve"][-1]["loss"])
    assert resumed.record["given"] == whole.record["given"]
