"""HNSA: which nodes of the adjacent levels each level borrows as extra negatives (METHODS.md 5.8). Training only."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from hierbench.defences.nodes import TrainingNodes
from hierbench.models.negatives import ExtraNegatives, Neighbour, Sides, extra_negatives


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
            above.append(Neighbour(first.prompt, first.steps, first.children.bool().transpose(0, 1)))
    leaves = extra_negatives(leaf_prompts, above)
    levels = []
    for tree in nodes.trees:
        rows = []
        for index, level in enumerate(tree.levels):
            near = []
            if lower:
                below_prompt = leaf_prompts if index == 0 else tree.levels[index - 1].prompt
                near.append(Neighbour(below_prompt, level.steps - 1, level.children.bool()))
            if upper and index + 1 < len(tree.levels):
                coarser = tree.levels[index + 1]
                near.append(Neighbour(coarser.prompt, coarser.steps, coarser.children.bool().transpose(0, 1)))
            rows.append(extra_negatives(level.prompt, near))
        levels.append(tuple(rows))
    return NegativeTables(leaves=leaves, levels=tuple(levels))
