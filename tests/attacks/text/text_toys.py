"""A text tower that adds up word vectors (or reads characters), so that the right answers are known."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hierbench.hierarchy.content import content_hash
from hierbench.hierarchy.load import hierarchy_from_content
from hierbench.hierarchy.tree import Hierarchy
from hierbench.models.binding import BoundModel, bind
from hierbench.models.heads import CosineHead, Head
from hierbench.models.pixels import PixelInput
from hierbench.models.zeroshot import ModelInfo, ZeroShotModel

SIDE = 4
WIDTH = SIDE * SIDE
TEMPLATE = "This is a photo of {noun}."

TREE = {
    "animal": ("an animal", {"cat": ("a cat", "n02121808"), "sea otter": ("a sea otter", "n02445715")}),
    "vehicle": ("a vehicle", {"car": ("a car", "n02958343"), "truck": ("a truck", "n04490091")}),
    "fruit": ("a fruit", {"apple": ("an apple", "n07739125"), "pear": ("a pear", "n07767847")}),
}


def toy_tree(tree: Mapping[str, Any] = TREE) -> Hierarchy:
    """Two depths: three superclasses, six leaves."""
    nodes = [{"id": "thing", "parent": None, "name": "thing", "noun": "a thing"}]
    classes = []
    for name, (noun, leaves) in tree.items():
        nodes.append({"id": name, "parent": "thing", "name": name, "noun": noun})
        for leaf, (leaf_noun, synset) in leaves.items():
            key = leaf.replace(" ", "_")
            classes.append(key)
            nodes.append({"id": key, "parent": name, "name": leaf, "noun": leaf_noun, "wordnet": synset})
    content: dict[str, Any] = {
        "format": 1,
        "dataset": "toys",
        "tree": "toy",
        "title": "Toy",
        "description": "A toy tree.",
        "default": True,
        "source": "written for the tests",
        "licence": "Apache-2.0",
        "levelling": "By hand.",
        "classes": classes,
        "nodes": nodes,
        "levels": [list(tree), classes],
    }
    content["hash"] = content_hash(content)
    return hierarchy_from_content(content, where="the toy tree")


def vector_of(token: str) -> Tensor:
    """A fixed random vector a token."""
    seed = int.from_bytes(hashlib.blake2b(token.encode(), digest_size=6).digest(), "big")
    return torch.randn(WIDTH, generator=torch.Generator().manual_seed(seed))


class Tokens(nn.Module):
    """Token vectors by number; number 0 is padding and has none."""

    def __init__(self, planted: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.names: list[str] = [""]
        self.planted = dict(planted)

    def number(self, token: str) -> int:
        if token not in self.names:
            self.names.append(token)
        return self.names.index(token)

    def forward(self, tokens: Tensor) -> Tensor:
        table = [torch.zeros(WIDTH)]
        table += [self.planted[n] if n in self.planted else vector_of(n) for n in self.names[1:]]
        return torch.stack(table)[tokens]


class Adder(nn.Module):
    """Adds the tokens up, each weighted by its place where ``ordered``."""

    def __init__(self, *, ordered: bool) -> None:
        super().__init__()
        self.ordered = ordered

    def forward(self, x: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        if self.ordered:
            place = torch.arange(1, x.shape[1] + 1, dtype=x.dtype)
            x = torch.tanh(x * (1 + 0.3 * torch.sin(place))[:, None])
        return x.sum(dim=1, keepdim=True).expand_as(x)


class ToyClip(nn.Module):
    def __init__(self, planted: Mapping[str, Tensor], *, characters: bool) -> None:
        super().__init__()
        self.token_embedding = Tokens(planted)
        self.positional_embedding = torch.zeros(400, WIDTH)
        self.transformer = Adder(ordered=characters)
        self.ln_final = nn.Identity()
        self.text_projection = nn.Parameter(torch.eye(WIDTH), requires_grad=False)
        self.text_pool_type = "last"
        self.visual = FirstChannel()


class FirstChannel(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, 0].flatten(1)


def toy_model(
    planted: Mapping[str, Tensor] | None = None, *, characters: bool = False, head: Head | None = None
) -> ZeroShotModel:
    clip = ToyClip(planted or {}, characters=characters)

    def tokenizer(texts: Sequence[str]) -> Tensor:
        split = [list(text.lower()) if characters else re.findall(r"\[unk\]|\w+", text.lower()) for text in texts]
        rows = [[clip.token_embedding.number(token) for token in tokens] for tokens in split]
        longest = max(map(len, rows))
        return torch.tensor([row + [0] * (longest - len(row)) for row in rows])

    return ZeroShotModel(
        info=ModelInfo(name="toy", defence="none", variant="", backbone="toy"),
        clip=clip,
        tokenizer=tokenizer,
        pixels=PixelInput(SIDE, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        head=head if head is not None else CosineHead(logit_scale=3.0),
    )


def toy_bound(
    planted: Mapping[str, Tensor] | None = None,
    *,
    characters: bool = False,
    head: Head | None = None,
    template: str = TEMPLATE,
) -> BoundModel:
    return bind(toy_model(planted, characters=characters, head=head), toy_tree(), template=template)


def images_like(
    bound: BoundModel, labels: Sequence[int], *, depth: int = 2, noise: float = 0.2, seed: int = 0
) -> Tensor:
    """Images whose embedding points along their own node's prompt: the clean model is right on them at that depth."""
    features = bound.model.text_hidden(bound.prompts[depth - 1]) @ bound.model.text_projection
    nodes = bound.layout.node_of_leaf(depth)[list(labels)]
    wanted = torch.nn.functional.normalize(features[nodes], dim=-1)
    generator = torch.Generator().manual_seed(seed)
    wanted = wanted + noise * torch.randn(wanted.shape, generator=generator) / WIDTH**0.5
    return (0.5 + 0.4 * wanted / wanted.abs().amax(dim=1, keepdim=True)).view(-1, 1, SIDE, SIDE).contiguous()
