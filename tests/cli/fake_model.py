"""A model on digits without weights: distances to the class means of the training images, through the real path."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hierbench.datasets.load import load_images
from hierbench.hierarchy.tree import Hierarchy
from hierbench.models.layout import NodeLayout
from hierbench.models.zeroshot import ModelInfo


class FakeModel:
    """As much of ``ZeroShotModel`` as the evaluation reads."""

    head = SimpleNamespace(kind="cosine")
    backbone = "tiny_clip-v1"
    weights_hash = "sha256:" + "ab" * 32
    text_forwards = 0

    def __init__(self, name: str = "clip") -> None:
        self.name = name
        defence = name.partition(".")[0].replace("clip", "none")
        self.info = ModelInfo(
            name=name,
            defence=defence,
            variant="",
            backbone=self.backbone,
            trained_on=None if defence == "none" else "digits",
            seen="seen-v1",
            settings={"eps": "16/255", "nested": {"a": [1, 2]}},
        )

    def to(self, device: Any) -> FakeModel:
        return self

    def eval(self) -> FakeModel:
        return self

    def parameters(self) -> Iterator[Tensor]:
        yield torch.zeros(10)


class FakeBound:
    def __init__(self, hierarchy: Hierarchy) -> None:
        train = load_images("digits", split="train")
        images = torch.from_numpy(train.array).float().flatten(1) / 255
        means = torch.stack([images[torch.from_numpy(train.labels) == c].mean(0) for c in range(10)])
        levels = [means]
        for row in hierarchy.leaf_to_node[:-1]:
            levels += [torch.stack([means[torch.from_numpy(row == n)].mean(0) for n in range(int(row.max()) + 1)])]
        self.points = torch.cat(levels)
        self.layout = NodeLayout.from_hierarchy(hierarchy, direct=True)
        self.prompts = [list(level.nouns) for level in hierarchy.levels]

    def __call__(self, pixels: Tensor) -> Tensor:
        return -torch.cdist(pixels.flatten(1), self.points) * 5


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every model name of the small tests mean the fake model."""
    from hierbench.evaluation import prepare
    from hierbench.models.catalogue import MODELS, ModelSpec

    for name, defence in (("hier_aft.digits", "hier_aft"), ("tecoa.digits", "tecoa")):
        spec = ModelSpec(name, defence, "digits", "tiny_clip-v1", "digits", None, f"{defence} on digits")
        if name not in MODELS:
            monkeypatch.setitem(MODELS._entries, name, spec)
    monkeypatch.setattr(prepare, "load_model", lambda entry, **_: FakeModel(entry.name))
    monkeypatch.setattr(prepare, "bind", lambda model, hierarchy, template: FakeBound(hierarchy))


def accuracy(n: int = 360) -> float:
    """Clean leaf accuracy of the fake model, computed beside the benchmark."""
    from hierbench.hierarchy.catalogue import load_hierarchy

    images = load_images("digits", limit=n)
    logits = FakeBound(load_hierarchy("digits"))(torch.from_numpy(images.array).float() / 255)
    return float(np.mean(logits[:, :10].argmax(1).numpy() == images.labels))
