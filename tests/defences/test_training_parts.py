"""A batch in parts takes the steps of the whole, with random numbers of its own for each part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from standin import digits_forest, make_task, small_images
from test_trainer import run, tensors
from torch import Tensor
from training_pieces import double_model

from hierbench.defences.base import Batch
from hierbench.defences.training.order import plan_batches, stream_key
from hierbench.defences.training.run import TrainingRun

PLAIN: dict[str, Any] = {"augmentation": "none", "clip_norm": None}


def close(a: dict[str, Tensor], b: dict[str, Tensor], *, atol: float) -> bool:
    return a.keys() == b.keys() and all(torch.allclose(a[name], b[name], rtol=0, atol=atol) for name in a)


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
