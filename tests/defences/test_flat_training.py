"""Every defence through the trainer: what moves, what stays, what a kill may not change."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from flat_formulas import DEFENDED, KEEPS_ORIGINAL, scene
from standin import SmallModel, mixed_forest, small_images
from torch import Tensor

from hierbench.attacks.threat import ThreatModel
from hierbench.defences.base import Batch, Defence, Perturbed
from hierbench.defences.catalogue import DEFENCES, DefenceSpec
from hierbench.defences.methods.clean_ft import CleanFTSettings
from hierbench.defences.training.settings import TrainingSettings
from hierbench.defences.training.trainer import RECORD_FILE, TrainingInterruptedError, TrainResult, train
from hierbench.errors import HierbenchError

ELSEWHERE = ("mmcoa", "tga_zsr", "saft")
"""These have their own files of tests, and need more of a model than the small one has."""


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
