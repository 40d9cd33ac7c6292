"""What the tests of stored adversarial images share: a cell that keeps them, and another model to show them to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cli import fake_model
from safetensors import safe_open

from hierbench.datasets.sampling import list_hash
from hierbench.evaluation.replay import file as image_file
from hierbench.evaluation.replay.tensors import Column, write_tensors
from hierbench.evaluation.runner import evaluate

N = 24
RUN: dict[str, Any] = {"limit": N, "settings": {"steps": 3}, "batch_size": 4, "device": "cpu", "eps": "24/255"}


class OtherModel(fake_model.FakeModel):
    """A model of the fake ones, with weights of its own."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.weights_hash = "sha256:" + hashlib.sha256(name.encode()).hexdigest()


class OtherBound(fake_model.FakeBound):
    """Class means that are a little off, differently for each model."""

    def __init__(self, model: OtherModel, hierarchy: Any) -> None:
        super().__init__(hierarchy)
        generator = torch.Generator().manual_seed(len(model.name))
        self.points = self.points + 0.05 * torch.randn(self.points.shape, generator=generator)


def images_of(out: Path, form: str) -> Path:
    (path,) = out.rglob(f"*.images-{form}.safetensors")
    return path


def stored(out: Path, form: str = "float", **changes: Any) -> Path:
    evaluate("clip", out=out, store_images=form, **{**RUN, **changes})
    return images_of(out, form)


def rewrite(
    path: Path, change: Callable[[dict[str, np.ndarray], dict[str, Any]], None], *, relist: bool = True
) -> Path:
    """Change tensors and heading of a file and write it anew with a checksum that is right: a hostile author's work."""
    with safe_open(str(path), framework="numpy") as opened:
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        heading = json.loads(opened.metadata()["heading"])
    tensors["ids"] = np.array(json.loads(tensors["ids"].tobytes()), dtype=object)
    change(tensors, heading)
    ids = tensors["ids"].tolist()
    if relist and len(ids) == len(tensors["labels"]) and isinstance(heading.get("identity"), dict):
        heading["identity"]["dataset"]["sample_list_hash"] = list_hash(ids, tensors["labels"])
    tensors["ids"] = np.frombuffer(json.dumps(ids).encode(), dtype=np.uint8)
    columns = [Column.of(name, np.ascontiguousarray(array)) for name, array in tensors.items()]
    changed = path.with_name("changed.safetensors")
    write_tensors(changed, columns, {"format": image_file.FORMAT, "heading": json.dumps(heading)})
    return changed
