"""The semantic ensemble: an attack on the descriptions of the classes instead of their single prompts.

It maximises the mean over K of CE over the classes' k-th descriptions. METHODS.md 2, 5.6; SAFT, arXiv 2602.12461.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from hierbench.datasets.descriptions import load_descriptions
from hierbench.errors import InputError
from hierbench.models.binding import BoundModel
from hierbench.models.descriptions import ChosenDescriptions, choose_descriptions, description_points
from hierbench.models.layout import NodeLayout

Scored = Literal["single", "ensemble"]


@dataclass(frozen=True)
class SemanticObjective:
    """Mean over the K descriptions of the cross-entropy of the true leaf.

    Args:
        first: the column where the description logits begin; K blocks of C columns.
        count: K.
    """

    first: int
    count: int

    def aims(self, clean_logits: Tensor, labels: Tensor, layout: NodeLayout) -> Tensor:
        """Return the labels, [n, 1, 1]."""
        return labels[:, None, None]

    def loss(self, logits: Tensor, aims: Tensor, layout: NodeLayout) -> Tensor:
        """Return the mean cross-entropy of each row's label, [B], from logits [B, first + K * C]."""
        rows, width = len(logits), layout.num_leaves
        described = logits[:, self.first : self.first + self.count * width].reshape(rows * self.count, width)
        truth = aims[:, 0].repeat_interleave(self.count)
        return cross_entropy(described, truth, reduction="none").reshape(rows, self.count).mean(dim=1)


class DescribedModel(nn.Module):
    """A bound model that also knows K descriptions of each leaf, encoded once, here.

    ``single`` leaves the model's answer as it is. ``ensemble`` makes the leaves' logits, by which every verdict and
    the clean accuracy go, the mean over the K descriptions; the superclasses' direct logits keep their single prompts.
    """

    def __init__(self, bound: BoundModel, chosen: ChosenDescriptions, *, scored: Scored = "single") -> None:
        super().__init__()
        if scored not in ("single", "ensemble"):
            raise InputError(f"scored {scored!r} is unknown: use single or ensemble")
        self.model = bound.model
        self.hierarchy = bound.hierarchy
        self.template = bound.template
        self.layout = bound.layout
        self.points = bound.points
        self.chosen = chosen
        self.scored = scored
        self.description_points = description_points(bound.model, chosen)
        described = tuple(sentence for row in chosen.sentences for sentence in row)
        self.prompts = (*bound.prompts[:-1], described) if scored == "ensemble" else bound.prompts
        """The prompts that make the logits of each level, coarsest first."""

    def forward(self, pixels: Tensor) -> Tensor:
        """Map pixels [B, c, h, w] in [0, 1] to fp32 logits [B, N]."""
        embedding = self.model.embed(pixels)
        if self.scored == "single":
            return self.model.logits(embedding, self.points)
        return self._answer(embedding, self._described(embedding))

    def searched(self, pixels: Tensor) -> Tensor:
        """Map pixels to [B, N + K * C]: what ``forward`` gives, then the logits over the descriptions."""
        embedding = self.model.embed(pixels)
        described = self._described(embedding)
        return torch.cat([self._answer(embedding, described), described], dim=1)

    def _described(self, embedding: Tensor) -> Tensor:
        return self.model.logits(embedding, self.description_points)

    def _answer(self, embedding: Tensor, described: Tensor) -> Tensor:
        # The same products as the bound model's own, so that search and verdict round alike.
        single = self.model.logits(embedding, self.points)
        if self.scored == "single":
            return single
        leaves = self.layout.num_leaves
        mean = described.reshape(len(described), self.chosen.count, leaves).mean(dim=1)
        return torch.cat([mean, single[:, leaves:]], dim=1)


def described_model(bound: BoundModel, *, count: int, file: str, scored: Scored) -> DescribedModel:
    """Return the model with the ``count`` descriptions of each class that are nearest to its name.

    They are the data set's own or those of a file, ranked by the attacked model's text side. Errors are
    ``InputError``: no descriptions, a damaged file, too few sentences for a class.
    """
    tree = bound.hierarchy
    found = load_descriptions(tree.dataset, [leaf.id for leaf in tree.leaves], file=file, at_least=count)
    chosen = choose_descriptions(bound.model, found, [leaf.name for leaf in tree.leaves], count=count)
    return DescribedModel(bound, chosen, scored=scored)
