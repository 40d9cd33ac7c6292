"""Which descriptions of a class stand for it: ranked and filtered by text-text cosine with the class's bare name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from hierbench.datasets.descriptions import Descriptions
from hierbench.errors import HierbenchError, InputError
from hierbench.models.zeroshot import ZeroShotModel


@dataclass(frozen=True, eq=False)
class ChosenDescriptions:
    """The K descriptions of every class, the nearest to its name first.

    Args:
        sentences: [K][C]; ``sentences[k][c]`` is T[k][c] of METHODS.md 5.6.
        similarity: float64 [K, C], the cosine of each with its class's bare name.
    """

    sentences: tuple[tuple[str, ...], ...]
    similarity: NDArray[np.float64]

    @property
    def count(self) -> int:
        """K, the descriptions of each class."""
        return len(self.sentences)

    @cached_property
    def digest(self) -> str:
        """``sha256:<hex>`` over the sentences in their order: what was used, wherever it came from."""
        text = json.dumps(self.sentences, ensure_ascii=False, separators=(",", ":"))
        return "sha256:" + hashlib.sha256(text.encode("utf-8")).hexdigest()


def choose_descriptions(
    model: ZeroShotModel,
    descriptions: Descriptions,
    names: Sequence[str],
    *,
    count: int = 5,
    minimum: float = -1.0,
) -> ChosenDescriptions:
    """Return the ``count`` sentences of each class that are nearest to its bare name. METHODS.md 5.6.

    Nearness is the cosine of the model's text features, in float64; of equally near sentences the earlier in the file
    comes first. A sentence under ``minimum`` is filtered out, and a class left with fewer than ``count`` is an
    ``InputError`` that names it.

    Args:
        model: whose text side ranks.
        descriptions: C classes, each with its sentences.
        names: the classes' bare names in label order.
    """
    if len(names) != len(descriptions.class_ids):
        raise ValueError(f"{len(names)} names for {len(descriptions.class_ids)} classes")
    if count < 1:
        raise InputError(f"descriptions: {count} a class is too few; give 1 or more")
    every = [sentence for own in descriptions.sentences for sentence in own]
    features = _directions(model, [*names, *every])
    of_name, of_sentence = features[: len(names)], features[len(names) :]
    chosen: list[tuple[str, ...]] = []
    similarity = np.empty((len(names), count))
    start = 0
    for number, (class_id, own) in enumerate(zip(descriptions.class_ids, descriptions.sentences, strict=True)):
        near = (of_sentence[start : start + len(own)] @ of_name[number]).cpu().numpy()
        start += len(own)
        order = [int(i) for i in np.argsort(-near, kind="stable") if near[i] >= minimum]
        if len(order) < count:
            limit = f" with a cosine of {minimum:g} or more to {names[number]!r}" if minimum > -1 else ""
            raise InputError(f"class {class_id!r} has {len(order)} sentences{limit}, and {count} are needed")
        chosen.append(tuple(own[i] for i in order[:count]))
        similarity[number] = near[order[:count]]
    return ChosenDescriptions(tuple(zip(*chosen, strict=True)), np.ascontiguousarray(similarity.T))


def description_points(model: ZeroShotModel, chosen: ChosenDescriptions) -> Tensor:
    """Return the head's points of the descriptions as leaf prompts, [K * C, E]; row k * C + c is T[k][c]."""
    with torch.no_grad():
        return torch.cat([model.node_points(row, steps_above_leaf=0) for row in chosen.sentences])


def _directions(model: ZeroShotModel, prompts: Sequence[str]) -> Tensor:
    """Return the normalised text features of prompts, float64 [N, E]."""
    with torch.no_grad():
        features = (model.text_hidden(prompts) @ model.text_projection).double()
    if not bool(torch.isfinite(features).all()):
        raise HierbenchError(f"model {model.name}: a text feature is not finite, so no description can be ranked")
    return normalize(features, dim=1)
