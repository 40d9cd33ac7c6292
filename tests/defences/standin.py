"""A small model, tree and image set, so that a defence's test takes a moment."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor, nn

from hierbench.attacks.threat import ThreatModel
from hierbench.datasets.images import ImageSet
from hierbench.datasets.spec import DatasetSpec, SplitSource
from hierbench.defences.base import TrainingTask
from hierbench.defences.nodes import training_nodes
from hierbench.hierarchy.tree import Forest, Hierarchy
from hierbench.models.heads import CosineHead, Head

TEXT_WIDTH, WIDTH = 12, 8


class SmallModel(nn.Module):
    """What a defence needs of ``ZeroShotModel``, with one convolution and made-up text features."""

    name = "clip"
    backbone = "small"

    def __init__(self, *, channels: int = 1, seed: int = 0, double: bool = False) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.visual = nn.Sequential(
            nn.Conv2d(channels, 6, 3, 1, 1),
            nn.BatchNorm2d(6),
            nn.Tanh(),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
            nn.Linear(96, WIDTH),
        )
        self.text_tower = nn.Linear(TEXT_WIDTH, TEXT_WIDTH)
        self.text_projection = nn.Parameter(torch.empty(TEXT_WIDTH, WIDTH))
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
            self.visual[1].running_mean.normal_(generator=generator)
        self.head: Head = CosineHead(logit_scale=2.0)
        if double:
            self.double()
        self.encoded = 0
        self.eval()

    @property
    def device(self) -> torch.device:
        return self.text_projection.device

    def embed(self, pixels: Tensor, *, tower: nn.Module | None = None) -> Tensor:
        out: Tensor = (self.visual if tower is None else tower)(pixels.to(self.text_projection.dtype))
        return out

    def encode_text(self, prompts: Sequence[str]) -> Tensor:
        out: Tensor = self.text_tower(self.text_hidden(prompts))
        return out

    def forget_text(self) -> None:
        pass

    def text_hidden(self, prompts: Sequence[str]) -> Tensor:
        self.encoded += len(prompts)
        rows = []
        for prompt in prompts:
            key = int.from_bytes(hashlib.blake2b(prompt.encode(), digest_size=7).digest(), "big")
            rows.append(torch.randn(TEXT_WIDTH, generator=torch.Generator().manual_seed(key), dtype=torch.float64))
        return torch.stack(rows).to(self.text_projection.dtype)

    def logits(self, embedding: Tensor, points: Tensor) -> Tensor:
        return self.head.logits(embedding, points)

    @property
    def weights_hash(self) -> str:
        digest = hashlib.sha256()
        for name, tensor in sorted(self.state_dict().items()):
            digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()


def digits_spec() -> DatasetSpec:
    return DatasetSpec(
        name="digits",
        title="Digits",
        grid=(8, 8, 1),
        template="a photo of {noun}.",
        splits={"train": SplitSource("digits", "train")},
        evaluation_split="test",
        augmentation="digit",
    )


def small_images(*, count: int = 60, classes: int = 10, channels: int = 1, side: int = 8, seed: int = 0) -> ImageSet:
    """Images whose class shows as a bright 2 x 2 block, so that a few steps of training help."""
    stream = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.int64) % classes
    array = stream.integers(0, 90, (count, channels, side, side), dtype=np.uint8)
    for image, label in zip(array, labels.tolist(), strict=True):
        image[:, label % 4 * 2 : label % 4 * 2 + 2, label // 4 * 2 : label // 4 * 2 + 2] += 120
    ids = tuple(f"{n:04d}" for n in range(count))
    return ImageSet(spec=digits_spec(), split="train", revision="made-up", ids=ids, labels=labels, array=array)


def make_task(
    model: SmallModel, forest: Forest, *, eps: str = "8/255", classes: Sequence[int] | None = None
) -> TrainingTask:
    template = "a photo of {noun}."
    nodes = training_nodes(forest, template=template, classes=classes)
    threat = ThreatModel("linf", Fraction(eps))
    return TrainingTask(nodes, model.text_hidden(nodes.prompts), threat, forest, template, digits_spec())


def digits_forest(*trees: str) -> Forest:
    from hierbench.hierarchy.catalogue import load_hierarchy

    return Forest(tuple(load_hierarchy("digits", tree) for tree in trees or ("strokes",)))


RAGGED = """\
# dataset: digits
# tree: ragged
# title: Ragged
# description: Leaves at three depths.
# default: no
# source: made up for a test
# licence: Apache-2.0
digit | a digit |
  ring | a ring |
    @0
    @8
    @6
  @1
  stroke | a stroke |
    open stroke | an open stroke |
      @2
      @3
    straight stroke | a straight stroke |
      @4
      @7
    @5
    @9
"""


def ragged_tree() -> Hierarchy:
    from hierbench.hierarchy.class_table import LeafClass
    from hierbench.hierarchy.outline import build_outline

    classes = [LeafClass(c.id, c.name, c.noun, c.wordnet) for c in digits_spec().classes]
    return build_outline(RAGGED, classes)


def mixed_forest() -> Forest:
    return Forest((*digits_forest("strokes").trees, ragged_tree()))
