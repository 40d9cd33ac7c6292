"""HNSA: nodes of the adjacent levels as extra negatives of a level's softmax (METHODS.md 5.8). Training only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from hierbench.defences.nodes import TrainingNodes
from hierbench.models.hyperbolic import radius

Sides = Literal["both", "lower", "upper", "off"]


@dataclass(frozen=True)
class ExtraNegatives:
    """Negatives that one level borrows from its neighbours. ``X`` of them, for ``M`` nodes."""

    groups: tuple[tuple[int, Tensor], ...]
    """Steps above the leaves of a neighbouring level, and long [X_g]: rows of the negatives among the prompts."""
    blocked: Tensor
    """bool [M, X]: the negative is a parent or child of the node, so it is none; columns in the order of the groups."""

    def __len__(self) -> int:
        return self.blocked.shape[1]


@dataclass(frozen=True)
class NegativeTables:
    """Extra negatives of the leaf level, and of each level of each tree."""

    leaves: ExtraNegatives
    levels: tuple[tuple[ExtraNegatives, ...], ...]


def negative_tables(nodes: TrainingNodes, *, sides: Sides) -> NegativeTables:
    """Work out once which neighbours each node may be pushed from.

    A neighbour whose prompt already stands in the level (a ragged leaf) is the same node and is left out. The leaf
    term is computed once for a forest, so its upper neighbours are those of all trees, each prompt once, blocked where
    it is the parent in any of them.
    """
    upper, lower = sides in ("both", "upper"), sides in ("both", "lower")
    device = next((level.prompt.device for tree in nodes.trees for level in tree.levels), torch.device("cpu"))
    leaf_prompts = torch.arange(nodes.num_classes, device=device)
    above = []
    for tree in nodes.trees:
        if upper and tree.levels:
            first = tree.levels[0]
            above.append((first.prompt, first.steps, first.children.bool().transpose(0, 1)))
    leaves = _merge(leaf_prompts, above)
    levels = []
    for tree in nodes.trees:
        rows = []
        for index, level in enumerate(tree.levels):
            near = []
            if lower:
                below_prompt = leaf_prompts if index == 0 else tree.levels[index - 1].prompt
                near.append((below_prompt, level.steps - 1, level.children.bool()))
            if upper and index + 1 < len(tree.levels):
                coarser = tree.levels[index + 1]
                near.append((coarser.prompt, coarser.steps, coarser.children.bool().transpose(0, 1)))
            rows.append(_merge(level.prompt, near))
        levels.append(tuple(rows))
    return NegativeTables(leaves=leaves, levels=tuple(levels))


def _merge(own: Tensor, near: list[tuple[Tensor, int, Tensor]]) -> ExtraNegatives:
    """Join neighbours ``(prompt [X], steps, related [M, X])``, each prompt once and none of the level's own."""
    taken = set(own.tolist())
    columns: dict[int, tuple[int, Tensor]] = {}
    for prompts, steps, related in near:
        for column, prompt in enumerate(prompts.tolist()):
            if prompt in taken:
                continue
            if prompt in columns:
                columns[prompt] = (columns[prompt][0], columns[prompt][1] | related[:, column])
            else:
                columns[prompt] = (steps, related[:, column])
    by_steps: dict[int, list[int]] = {}
    for prompt, (steps, _) in columns.items():
        by_steps.setdefault(steps, []).append(prompt)
    order = [prompt for prompts in by_steps.values() for prompt in prompts]
    return ExtraNegatives(
        groups=tuple(
            (steps, torch.tensor(prompts, dtype=torch.long, device=own.device)) for steps, prompts in by_steps.items()
        ),
        blocked=(
            torch.stack([columns[prompt][1] for prompt in order], dim=1)
            if order
            else torch.zeros(len(own), 0, dtype=torch.bool, device=own.device)
        ),
    )


def at_radius(points: Tensor, target: Tensor) -> Tensor:
    """Move points ``[X, E]`` along their rays to the radius ``target`` (a scalar)."""
    own = radius(points).unsqueeze(-1)
    return points * (target / own.clamp_min(torch.finfo(points.dtype).eps))
