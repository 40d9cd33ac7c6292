"""Averaged weights and half precision: what is kept, what is narrow, what a kill may not change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from standin import SmallModel, small_images
from test_trainer import StoppedError, run, same, stop_at, tensors
from torch import Tensor

from hierbench.defences.base import Batch, Perturbed
from hierbench.defences.catalogue import DefenceSpec
from hierbench.defences.methods.tecoa import TeCoA
from hierbench.defences.training.trainer import RECORD_FILE, TrainProgress
from hierbench.defences.training.validation import Watch
from hierbench.errors import InputError


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
