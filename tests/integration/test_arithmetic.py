"""Hours and memory by arithmetic: held against a counter of operations, real towers, and what trainings counted."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

ROOT = Path(__file__).resolve().parents[2]
if not (ROOT / "benchmarks").is_dir():
    pytest.skip("the benchmarks are not part of the installed package", allow_module_level=True)
ARCHITECTURES = {"ViT-B/32": "ViT-B-32-quickgelu", "ViT-L/14": "ViT-L-14-quickgelu"}


@pytest.fixture(scope="module")
def arithmetic() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("arithmetic", ROOT / "benchmarks" / "arithmetic.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["arithmetic"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["arithmetic"]


@pytest.fixture(scope="module", params=list(ARCHITECTURES))
def real(request: pytest.FixtureRequest) -> tuple[str, Any]:
    """A real architecture whose tensors have shapes and no content."""
    from open_clip.factory import get_model_config
    from open_clip.model import CLIP

    with torch.device("meta"):
        clip = CLIP(**get_model_config(ARCHITECTURES[request.param]))
    return request.param, clip.eval()


def passes(tower: torch.nn.Module, *, backward: bool) -> int:
    pixels = torch.empty(1, 3, 224, 224, device="meta", requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        out = tower(pixels)
        if backward:
            out.sum().backward()
    return int(counter.get_total_flops())


def test_a_forward_has_the_flops_that_torch_counts(arithmetic: ModuleType, real: tuple[str, Any]) -> None:
    name, clip = real
    assert arithmetic.TOWERS[name].forward_flops == pytest.approx(passes(clip.visual, backward=False), rel=0.001)


def test_a_backward_costs_one_forward_to_the_pixels_and_two_to_the_weights(
    arithmetic: ModuleType, real: tuple[str, Any]
) -> None:
    name, clip = real
    tower = arithmetic.TOWERS[name]
    clip.visual.requires_grad_(True)
    assert passes(clip.visual, backward=True) == pytest.approx(tower.training_flops(0), rel=0.02)
    clip.visual.requires_grad_(False)
    assert passes(clip.visual, backward=True) == pytest.approx(tower.attack_flops(1), rel=0.03)


def test_weights_are_counted_to_the_last(arithmetic: ModuleType, real: tuple[str, Any]) -> None:
    name, clip = real
    counts = {part: sum(p.numel() for p in module.parameters()) for part, module in (("all", clip), ("v", clip.visual))}
    assert arithmetic.TEXT_PARAMETERS[name] == counts["all"] - counts["v"]
    assert arithmetic.TOWERS[name].parameters == pytest.approx(counts["v"], rel=1e-4)


@pytest.mark.parametrize("training", [True, False])
def test_what_a_forward_keeps_is_what_autograd_saves(
    arithmetic: ModuleType, real: tuple[str, Any], training: bool
) -> None:
    name, clip = real
    tower = arithmetic.TOWERS[name]
    clip.visual.requires_grad_(training)
    own = {t.untyped_storage()._cdata for t in clip.visual.state_dict(keep_vars=True).values()}
    kept: dict[int, Any] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = clip.visual(torch.empty(1, 3, 224, 224, device="meta", requires_grad=True))
    assert out.requires_grad
    # Without a device attention is not fused and keeps its weights, which fused attention does not.
    heads = clip.visual.transformer.resblocks[0].attn.num_heads
    scores = 4 * tower.layers * heads * tower.tokens**2
    saved = sum(storage.nbytes() for storage in kept.values()) - scores
    assert tower.activation_bytes(training=training) == pytest.approx(saved, rel=0.06)


@pytest.mark.parametrize(("model", "steps"), [("tecoa.tiny", 2), ("hier_aft.tiny", 3)])
def test_recipes_take_the_passes_that_a_training_counted(arithmetic: ModuleType, model: str, steps: int) -> None:
    run = json.loads((ROOT / "weights" / model / "training.json").read_text())
    settings, done = run["given"], run["run"]
    assert (model.split(".")[0], steps) in [(recipe.split("/")[1], n) for recipe, n in arithmetic.TRAININGS]
    images = done["steps"] * settings["training"]["batch_size"]
    assert settings["settings"]["attack_steps"] == steps
    assert done["forwards"] == pytest.approx((steps + 1) * images, rel=0.01)
    assert done["backwards"] == pytest.approx((steps + 1) * images, rel=0.01)


def test_hours_are_flops_over_what_is_sustained(arithmetic: ModuleType) -> None:
    gpu = arithmetic.Gpu("one", 1e12)
    assert gpu.hours(3.6e15, utilisation=0.5) == 2.0
    assert gpu.hours(3.6e15, utilisation=0.5, gpus=8) == 0.25
    for wrong in ({"utilisation": 0.0}, {"utilisation": 1.5}, {"gpus": 0}):
        with pytest.raises(ValueError, match="a share above 0"):
            gpu.hours(1.0, **wrong)


def test_memory_adds_weights_gradients_moments_and_activations(arithmetic: ModuleType) -> None:
    tower = arithmetic.ImageTower(layers=1, width=2, patch=112, embedding=3)
    assert (tower.patches, tower.tokens) == (4, 5)
    kept = 23 * 1 * 5 * 2 * 4
    assert tower.activation_bytes(training=True) == kept
    assert tower.training_bytes(7, text_parameters=10) == 16 * tower.parameters + 40 + 7 * kept
    assert tower.attack_bytes(7, text_parameters=10) == 4 * tower.parameters + 40 + 7 * 16 * 5 * 2 * 4
    halves = tower.training_bytes(7, text_parameters=0, number_bytes=2)
    assert halves == 16 * tower.parameters + 7 * kept // 2
