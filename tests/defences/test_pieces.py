"""Settings, catalogue, data order, schedule, augmentation, log, checkpoint file, folded batch norms."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from standin import SmallModel
from torch import nn

from hierbench.defences.base import SCOPES, Defence
from hierbench.defences.catalogue import DEFENCES
from hierbench.defences.methods.hier_aft.settings import HierAFTSettings
from hierbench.defences.methods.tecoa import TeCoASettings
from hierbench.defences.training import checkpoint as files
from hierbench.defences.training.augment import AUGMENTATIONS, augment
from hierbench.defences.training.order import numpy_stream, plan_batches
from hierbench.defences.training.schedule import rate_at, warmup_steps
from hierbench.defences.training.settings import TrainingSettings
from hierbench.defences.training.trainlog import TrainLog
from hierbench.defences.training.weights import select_weights
from hierbench.errors import HierbenchError, InputError
from hierbench.models.folding import batch_norms_folded, foldable_pairs


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"lambda_vik": 1.0}, "did you mean 'lambda_vic'"),
        ({"hnsa": "sideways"}, "hnsa = 'sideways': choose 'both' or"),
        ({"curvature": "1"}, "curvature = '1': it should be a number"),
        ({"curvature": 0.0}, "above 0"),
        ({"attack_steps": 0}, "1 or more"),
        ({"attack_steps": 2.5}, "attack_steps"),
        ({"train_scalars": 1}, "train_scalars"),
        ({"vic_quantile": 1.5}, r"\[0, 1\]"),
        ({"alpha_share": -1.0}, "alpha_share"),
        ({"lambda_gap": float("nan")}, "lambda_gap"),
    ],
)
def test_bad_settings_say_what_would_be_right(values: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        HierAFTSettings.from_dict(values)


@pytest.mark.parametrize(
    "values",
    [
        {"learning_rate": 0.0},
        {"betas": (0.9,)},
        {"betas": (0.9, 1.0)},
        {"clip_norm": 0.0},
        {"optimiser": "lion"},
        {"precision": "fp64"},
        {"ema_decay": 1.0},
        {"shots": 0},
        {"accumulate": 0},
        {"accumulate": 9, "batch_size": 8},
        {"train_scope": "blocks:0"},
        {"train_scope": "text"},
        {"validation_images": -1},
        {"validation_points": 0},
        {"stop_on_overfitting": True, "validation_images": 0},
        {"steps": 0},
        {"momentum": 1.0},
        {"augmentation": "flips"},
    ],
)
def test_bad_recipes(values: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(values))):
        TrainingSettings(**values)


@pytest.mark.parametrize("settings", [HierAFTSettings(), TeCoASettings(), TrainingSettings(clip_norm=None)])
def test_settings_survive_json(settings: Any) -> None:
    assert type(settings).from_dict(json.loads(json.dumps(settings.as_dict()))) == settings


def test_step_sizes_of_the_inner_attacks() -> None:
    one, four = Fraction(1, 255), Fraction(4, 255)
    assert TeCoASettings().attack_steps == 2 and HierAFTSettings().attack_steps == 3
    assert TeCoASettings().alpha(four) == pytest.approx(4 / 255)
    assert HierAFTSettings().alpha(one) == pytest.approx(1 / 255)
    assert HierAFTSettings().alpha(four) == pytest.approx(2 / 255)
    assert HierAFTSettings(alpha_share=0.25).alpha(four) == pytest.approx(1 / 255)


def test_catalogue_is_light_and_complete() -> None:
    code = (
        "import sys; from hierbench.defences.catalogue import DEFENCES; print(DEFENCES.names(), 'torch' in sys.modules)"
    )
    paths = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=paths)
    names = ["none", "tecoa", "clean_ft", "pmg_aft", "fare", "tga_zsr", "mmcoa", "saft", "agft", "hxe", "soft_labels"]
    assert found.stdout.strip() == f"{[*names, 'hier_aft']} False"
    for name, spec in DEFENCES.items():
        assert spec.name == name and spec.title and spec.summary
        assert set(spec.trains) <= set(SCOPES)
        if name != "none":
            method = spec.load()
            assert issubclass(method, Defence) and method.name == name and spec.source
            spec.settings_type()()
    with pytest.raises(InputError, match="nothing to train"):
        DEFENCES.get("none").load()
    with pytest.raises(InputError, match="did you mean 'hier_aft'"):
        DEFENCES.get("heir_aft")


def test_every_epoch_shows_every_image_once_in_another_order() -> None:
    plan = plan_batches(20, batch_size=5, epochs=3, steps=None, seed=4)
    assert (plan.per_epoch, plan.steps) == (4, 12)
    seen = []
    for epoch in range(3):
        order = plan.permutation(epoch)
        batches = [plan.batch(step, order) for step in range(4 * epoch, 4 * epoch + 4)]
        assert sorted(np.concatenate(batches).tolist()) == list(range(20))
        seen.append(np.concatenate(batches).tolist())
    assert seen[0] != seen[1] != seen[2]
    assert seen[1] == plan_batches(20, batch_size=5, epochs=9, steps=None, seed=4).permutation(1).tolist()
    assert seen[1] != plan_batches(20, batch_size=5, epochs=3, steps=None, seed=5).permutation(1).tolist()


def test_plan_of_few_images_and_of_given_steps() -> None:
    assert plan_batches(3, batch_size=128, epochs=2, steps=None, seed=0).batch_size == 3
    assert plan_batches(100, batch_size=10, epochs=2, steps=7, seed=0).steps == 7
    assert plan_batches(100, batch_size=10, epochs=0.25, steps=None, seed=0).steps == 3


def test_schedule() -> None:
    assert warmup_steps(100, share=0.07, limit=1000) == 7
    assert warmup_steps(20_000, share=0.07, limit=1000) == 1000
    rates = [rate_at(s, steps=100, warmup=7, peak=2.0) for s in range(100)]
    assert rates[:7] == pytest.approx([2.0 * (s + 1) / 7 for s in range(7)])
    assert rates[7:] == pytest.approx([1 + math.cos(math.pi * s / 93) for s in range(93)])


def test_photo_augmentation_is_padded_crop_and_flip() -> None:
    images = torch.randint(0, 256, (40, 3, 16, 16), dtype=torch.uint8)
    got = augment(images, AUGMENTATIONS["photo"], numpy_stream(0, "augment", 3))
    stream = numpy_stream(0, "augment", 3)
    top, left, flips = stream.integers(0, 5, 40), stream.integers(0, 5, 40), stream.random(40) < 0.5
    padded = torch.zeros(40, 3, 20, 20, dtype=torch.uint8)
    padded[:, :, 2:18, 2:18] = images
    for i in range(40):
        want = padded[i, :, top[i] : top[i] + 16, left[i] : left[i] + 16]
        assert torch.equal(got[i], want.flip(-1) if flips[i] else want)
    assert flips.any() and not flips.all() and len(set(top.tolist())) == 5


def test_digits_shift_by_at_most_one_pixel_and_never_flip() -> None:
    images = torch.randint(1, 256, (60, 1, 8, 8), dtype=torch.uint8)
    got = augment(images, AUGMENTATIONS["digit"], numpy_stream(1, "augment", 0))
    moves = set()
    for image, result in zip(images, got, strict=True):
        padded = torch.zeros(1, 10, 10, dtype=torch.uint8)
        padded[:, 1:9, 1:9] = image
        moves |= {(y, x) for y in range(3) for x in range(3) if torch.equal(padded[:, y : y + 8, x : x + 8], result)}
    assert len(moves) == 9
    assert torch.equal(augment(images, AUGMENTATIONS["none"], numpy_stream(1, "augment", 0)), images)


def test_log_keeps_window_means_and_resumes_inside_a_window() -> None:
    whole, split = TrainLog(every=3), TrainLog(every=3)
    for step in range(1, 9):
        whole.add(step, {"loss": step * 0.1})
        split.add(step, {"loss": step * 0.1})
        split = TrainLog.from_state(json.loads(json.dumps(split.state())))
    whole.close(8)
    split.close(8)
    assert whole.points == split.points
    assert [point["step"] for point in whole.points] == [3, 6, 8]
    assert whole.points[0]["loss"] == pytest.approx(0.2)
    assert whole.recent(2)["loss"] == pytest.approx((0.5 + 0.75) / 2)


def test_a_checkpoint_is_whole_or_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "deep" / files.CHECKPOINT_FILE
    files.write_checkpoint(path, tensors={"a": torch.arange(3.0)}, state={"step": 1, "x": 0.1 + 0.2})

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", die)
    with pytest.raises(KeyboardInterrupt):
        files.write_checkpoint(path, tensors={"a": torch.zeros(3)}, state={"step": 2})
    tensors, state = files.read_checkpoint(path)
    assert tensors["a"].tolist() == [0, 1, 2] and state == {"step": 1, "x": 0.1 + 0.2}


@pytest.mark.parametrize("damage", ["cut", "text", "foreign", "version"])
def test_damaged_checkpoints_are_named(tmp_path: Path, damage: str) -> None:
    path = tmp_path / files.CHECKPOINT_FILE
    files.write_checkpoint(path, tensors={"a": torch.arange(300.0)}, state={"step": 1})
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-40])
    elif damage == "text":
        path.write_text("no checkpoint")
    else:
        from safetensors.torch import save_file

        header = {"format": "99", "state": "{}"} if damage == "version" else None
        save_file({"a": torch.zeros(1)}, path, metadata=header)
    with pytest.raises(InputError, match=files.CHECKPOINT_FILE) as caught:
        files.read_checkpoint(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_optimiser_state_survives_the_file(tmp_path: Path, kind: str) -> None:
    def build() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        net = nn.Conv2d(2, 3, 3).to(memory_format=torch.channels_last)
        made: dict[str, torch.optim.Optimizer] = {
            "adamw": torch.optim.AdamW(net.parameters(), lr=0.1),
            "sgd": torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9),
        }
        return net, made[kind]

    def step(net: nn.Module, optimiser: torch.optim.Optimizer, seed: int) -> None:
        optimiser.zero_grad()
        net(torch.randn(2, 2, 5, 5, generator=torch.Generator().manual_seed(seed))).square().sum().backward()
        optimiser.step()

    net, optimiser = build()
    for seed in range(3):
        step(net, optimiser, seed)
    names = {id(p): name for name, p in net.named_parameters()}
    tensors = {**files.optimiser_tensors(optimiser, names), **{f"m/{k}": v for k, v in net.state_dict().items()}}
    files.write_checkpoint(tmp_path / "c", tensors=tensors, state={})
    stored, _ = files.read_checkpoint(tmp_path / "c")
    again, fresh = build()
    again.load_state_dict({k.removeprefix("m/"): v for k, v in stored.items() if k.startswith("m/")})
    files.restore_optimiser(fresh, stored, dict(again.named_parameters()))
    for seed in range(3, 6):
        step(net, optimiser, seed)
        step(again, fresh, seed)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), again.parameters(), strict=True))


def test_folded_batch_norms_compute_the_same_and_come_back_bit_for_bit() -> None:
    model = SmallModel()
    pixels = torch.rand(5, 1, 8, 8)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    plain = model.embed(pixels).detach()
    pairs = foldable_pairs(model.visual, model.embed, pixels)
    assert pairs == [(model.visual[0], model.visual[1])]
    with batch_norms_folded(pairs):
        inside = model.embed(pixels).detach()
        assert not torch.equal(model.visual[0].weight, before["visual.0.weight"])
    torch.testing.assert_close(inside, plain, rtol=1e-5, atol=1e-5)
    assert {name: t.tolist() for name, t in model.state_dict().items()} == {n: t.tolist() for n, t in before.items()}
    assert torch.equal(model.embed(pixels), plain)


def test_a_tower_whose_convolution_feeds_two_readers_is_left_alone() -> None:
    class Forked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)
            self.norm.running_mean += 0.5

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.conv(x)
            return (self.norm(y) + y).flatten(1)

    tower = Forked().eval()
    assert foldable_pairs(tower, tower, torch.rand(2, 1, 6, 6)) == []


def test_gradients_are_kept_for_what_trains_only() -> None:
    model: Any = SmallModel()
    weights = select_weights(model, ("visual",))
    wanted = {name for name, p in model.named_parameters() if p.requires_grad}
    assert wanted == set(weights.named) == {name for name, _ in model.named_parameters() if name.startswith("visual.")}
    with pytest.raises(HierbenchError, match="cannot train 'text_tower'"):
        select_weights(model, ("text_tower",))
    model.head.logit_scale = None
    with pytest.raises(HierbenchError, match="no parameters in scope 'head'"):
        select_weights(model, ("head",))
