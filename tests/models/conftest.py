"""A small backbone in a folder, a model fine-tuned from it, and its checkpoint in every layout of the literature."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import save_file

from hierbench.models.backbones import load_backbone
from hierbench.models.heads import CosineHead
from hierbench.models.zeroshot import ZeroShotModel

PROMPTS = ["a photo of a zero.", "a photo of a one.", "a photo of a two."]
CONFIG = {
    "model_cfg": {
        "embed_dim": 12,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 16, "head_width": 8, "patch_size": 16},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 1},
    },
    "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]},
}


def logits(model: ZeroShotModel) -> torch.Tensor:
    pixels = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return model(pixels, model.node_points(PROMPTS, steps_above_leaf=0))


@dataclass
class Tuned:
    """A fine-tuned model, and what its training would have saved."""

    backbone: str
    model: ZeroShotModel
    """Its image tower moved."""
    both: ZeroShotModel
    """Its text tower and its logit scale moved as well."""

    def expected(self, layout: str) -> ZeroShotModel:
        return self.both if layout in FULL else self.model


def write_backbone(folder: Path, config: dict[str, Any] = CONFIG, *, seed: int = 0) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    torch.manual_seed(seed)
    clip = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    save_file(clip.state_dict(), folder / "open_clip_model.safetensors")
    return f"local-dir:{folder}"


def _visual(tuned: Tuned, path: Path) -> None:
    torch.save(tuned.model.clip.visual.state_dict(), path)


def _vision_encoder(tuned: Tuned, path: Path) -> None:
    visual = tuned.model.clip.visual
    optimiser = torch.optim.SGD(visual.parameters(), lr=0.1, momentum=0.9)
    for parameter in visual.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = {name: tensor.clone() for name, tensor in visual.state_dict().items()}
    optimiser.step()  # so that its state holds momenta, tensor for tensor
    visual.load_state_dict(before)
    content = {
        "epoch": 3,
        "state_dict": {},
        "add_prompter": {"module.prompt": torch.zeros(1, 0, 768)},
        "best_acc1": np.float64(41.25),
        "vision_encoder_state_dict": visual.state_dict(),
        "optimizer": optimiser.state_dict(),
    }
    torch.save(content, path)


def _modules(tuned: Tuned, path: Path) -> None:
    torch.save({"modules": {"clip.visual": tuned.model.clip.visual.state_dict()}, "params": {}}, path)


def _data_parallel(tuned: Tuned, path: Path) -> None:
    wrapped = torch.nn.DataParallel(tuned.both.clip)
    torch.save({"model": wrapped.state_dict(), "epoch": 9}, path)


def _full(tuned: Tuned, path: Path) -> None:
    state = {f"module.{name}": tensor for name, tensor in tuned.both.clip.state_dict().items()}
    torch.save({"epoch": 1, "name": "run", "state_dict": state, "scaler": {}}, path)


def _full_bare(tuned: Tuned, path: Path) -> None:
    numbers = {"input_resolution": torch.tensor(32), "context_length": torch.tensor(16), "vocab_size": torch.tensor(9)}
    torch.save({**tuned.both.clip.state_dict(), **numbers}, path)


def _safetensors(tuned: Tuned, path: Path) -> None:
    save_file(tuned.model.clip.visual.state_dict(), path)


def _safetensors_full(tuned: Tuned, path: Path) -> None:
    save_file(tuned.both.clip.state_dict(), path)


def _before_zip(tuned: Tuned, path: Path) -> None:
    torch.save(tuned.model.clip.visual.state_dict(), path, _use_new_zipfile_serialization=False)


def _prefixed(tuned: Tuned, path: Path) -> None:
    torch.save({f"visual.{k}": v for k, v in tuned.model.clip.visual.state_dict().items()}, path)


WRITERS: dict[str, Callable[[Tuned, Path], None]] = {
    "visual": _visual,
    "vision-encoder": _vision_encoder,
    "modules": _modules,
    "data-parallel": _data_parallel,
    "full": _full,
    "safetensors": _safetensors,
    "visual behind visual.": _prefixed,
    "visual before torch 1.6": _before_zip,
    "full as OpenAI has it": _full_bare,
    "full as safetensors": _safetensors_full,
}
FULL = ("data-parallel", "full", "full as OpenAI has it", "full as safetensors")
SIX = ("visual", "vision-encoder", "modules", "data-parallel", "full", "safetensors")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "layout_of_six" in metafunc.fixturenames:
        metafunc.parametrize("layout_of_six", SIX)
    if "every_layout" in metafunc.fixturenames:
        metafunc.parametrize("every_layout", list(WRITERS))


@pytest.fixture(scope="session")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    name = write_backbone(tmp_path_factory.mktemp("backbone") / "small")
    model, both = load_backbone(name), load_backbone(name)
    for seed, (moved, modules) in enumerate(((model, [model.clip.visual]), (both, [both.clip]))):
        draws = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for module in modules:
                for parameter in module.parameters():
                    parameter.add_(0.1 * torch.randn(parameter.shape, generator=draws))
        moved.head = CosineHead(logit_scale=float(moved.clip.logit_scale))
    return Tuned(name, model, both)


@pytest.fixture
def write(tuned: Tuned, tmp_path: Path) -> Callable[[str], Path]:
    """Write a checkpoint in a layout and return its path."""

    def written(layout: str) -> Path:
        path = tmp_path / ("tuned.safetensors" if "safetensors" in layout else "tuned.pt")
        WRITERS[layout](tuned, path)
        return path

    return written


@pytest.fixture
def answer() -> Callable[[ZeroShotModel], torch.Tensor]:
    """The logits of a model on fixed images and prompts."""
    return logits


@pytest.fixture
def make_backbone() -> Callable[..., str]:
    """Write a backbone's folder from a configuration; see ``write_backbone``."""
    return write_backbone


@pytest.fixture
def config() -> dict[str, Any]:
    """A small open_clip configuration of the test's own."""
    copied: dict[str, Any] = json.loads(json.dumps(CONFIG))
    return copied
