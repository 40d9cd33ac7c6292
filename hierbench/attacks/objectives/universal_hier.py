"""One perturbation of an image for all levels at once, against the loss Hier-AFT trains with.

The objective is the weighted cross-entropy over the levels, each level's softmax widened by the unrelated nodes of the
levels next to it (HNSA), with a worst-case nudge delta_T of the text features. Training takes the nodes above the
leaves from a batch of images; an attack must not, so here each image stands for itself at every level, and no row knows
of another. The verdict is the ordinary one: none of this is in it. METHODS.md 2, 5.8.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from hierbench.attacks.objectives.base import level_weights
from hierbench.attacks.optimisers.angular import check_bound
from hierbench.models.heads import Head
from hierbench.models.layout import NodeLayout
from hierbench.models.negatives import ExtraNegatives, Neighbour, Sides, extra_negatives, logits_with_negatives


@dataclass(frozen=True)
class LevelNodes:
    """One level: its nodes' prompts, its weight, and what it borrows."""

    steps: int
    """Steps above the leaves."""
    weight: float
    prompt: Tensor
    """long [M]: each node's row among the prompts."""
    extra: ExtraNegatives


def distinct_prompts(levels: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Return every prompt of the levels once, the leaves' first; a ragged leaf has one prompt at several levels."""
    return tuple(dict.fromkeys(text for level in reversed(levels) for text in level))


def level_nodes(prompts: Sequence[Sequence[str]], layout: NodeLayout, *, sides: Sides) -> tuple[LevelNodes, ...]:
    """Return the levels of a tree, coarsest first, from the prompts of each.

    ``sides`` says from which neighbours a level borrows: the ``lower`` (deeper) one, the ``upper`` one, both, or none.
    """
    row = {text: number for number, text in enumerate(distinct_prompts(prompts))}
    rows = [torch.tensor([row[text] for text in level], device=layout.device) for level in prompts]
    depths, weights = layout.num_depths, level_weights(layout.num_depths)

    def parents(depth: int) -> Tensor:
        """Bool [n of the depth above, n of the depth]: parent and child."""
        above = layout.ancestors(depth)[:, depth - 2]
        return torch.nn.functional.one_hot(above, layout.nodes_at(depth - 1)).bool().T

    found = []
    for depth in range(1, depths + 1):
        near = []
        if sides in ("both", "lower") and depth < depths:
            near.append(Neighbour(rows[depth], depths - depth - 1, parents(depth + 1)))
        if sides in ("both", "upper") and depth > 1:
            near.append(Neighbour(rows[depth - 2], depths - depth + 1, parents(depth).T))
        own = rows[depth - 1]
        found.append(LevelNodes(depths - depth, weights[depth - 1], own, extra_negatives(own, near)))
    return tuple(found)


@dataclass(frozen=True, eq=False)
class WithEmbedding:
    """A bound model's logits [B, N], and after them the image embedding [B, E] they were made from."""

    bound: Any

    def __post_init__(self) -> None:
        check_bound(self.bound, "universal_hier")

    def __call__(self, pixels: Tensor) -> Tensor:
        """Map pixels [B, c, h, w] in [0, 1] to [B, N + E]."""
        model = self.bound.model
        embedding = model.embed(pixels)
        return torch.cat([model.logits(embedding, self.bound.points), embedding], dim=1)


@dataclass(frozen=True, eq=False)
class UniversalHierObjective:
    """Weighted cross-entropy of the true node at every level, HNSA and delta_T in it, on the model's own head.

    delta_T lies in the Linf ball of ``text_eps`` on the normalised text feature, one for each node and each image: a
    step of that size along the sign of its gradient at 0, taken anew at every point. The ball is so small that the
    loss is straight inside it, so one step is the maximum but for rounding [D].

    The borrowed nodes are moved to the level's mean radius first, as in training. On a cosine head every node has
    radius 1 and nothing moves, so the attack is defined there too [D].

    Args:
        head: the model's.
        features: projected text features of the distinct prompts, [P, E], without a graph.
        levels: coarsest first.
        columns: how many columns of the logits are the model's own; the image embedding follows them.
        text_eps: radius of delta_T; 0 leaves it out.
        level_radius: False keeps borrowed nodes at their own radius.
    """

    head: Head
    features: Tensor
    levels: tuple[LevelNodes, ...]
    columns: int
    text_eps: float = 2e-4
    level_radius: bool = True

    def aims(self, clean_logits: Tensor, labels: Tensor, layout: NodeLayout) -> Tensor:
        """Return the true node of every depth, [n, 1, D]."""
        return layout.leaf_to_node[:, labels].T[:, None, :]

    def loss(self, logits: Tensor, aims: Tensor, layout: NodeLayout) -> Tensor:
        """Return the weighted sum of each row, [B], from [B, N + E]."""
        embedding = logits[:, self.columns :]
        if not self.text_eps:
            return self._levels(embedding, self.features, aims)
        length = self.features.norm(dim=-1, keepdim=True)
        return self._row_by_row(embedding, self.features + length * self.text_delta(embedding, aims), aims)

    def text_delta(self, embedding: Tensor, aims: Tensor) -> Tensor:
        """Return delta_T of each row, [B, P, E], for image embeddings [B, E] and true nodes [B, D]."""
        with torch.enable_grad():
            start = self.features.expand(len(embedding), *self.features.shape).clone().requires_grad_()
            loss = self._row_by_row(embedding.detach(), start, aims)
            (gradient,) = torch.autograd.grad(loss.sum(), start)
        return self.text_eps * gradient.sign()

    def _row_by_row(self, embedding: Tensor, features: Tensor, aims: Tensor) -> Tensor:
        """Return [B] as ``_levels`` does, for text features [B, P, E] that differ from row to row."""
        rows = torch.vmap(lambda image, text, aim: self._levels(image[None], text, aim[None])[0])
        found: Tensor = rows(embedding, features, aims)
        return found

    def _levels(self, embedding: Tensor, features: Tensor, aims: Tensor) -> Tensor:
        """Return [B] for embeddings [B, E], text features [P, E] that they share, and true nodes [B, D]."""
        images = self.head.image_points(embedding)
        total = embedding.new_zeros(len(embedding))
        for depth, level in enumerate(self.levels):
            own = self.head.points(features.index_select(0, level.prompt), level.steps)
            logits = logits_with_negatives(
                self.head, images, own, level.extra, features, aims[:, depth], level_radius=self.level_radius
            )
            total = total + level.weight * cross_entropy(logits, aims[:, depth], reduction="none")
        return total


def universal_hier_objective(
    bound: Any, layout: NodeLayout, *, sides: Sides, text_eps: float, level_radius: bool
) -> UniversalHierObjective:
    """Return the objective for a bound model (``hierbench.models.binding.BoundModel``)."""
    check_bound(bound, "universal_hier")
    model = bound.model
    with torch.no_grad():
        features = (model.text_hidden(distinct_prompts(bound.prompts)) @ model.text_projection).detach()
    return UniversalHierObjective(
        head=model.head,
        features=features,
        levels=level_nodes(bound.prompts, layout.to(features.device), sides=sides),
        columns=len(bound.points),
        text_eps=text_eps,
        level_radius=level_radius,
    )
