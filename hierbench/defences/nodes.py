"""The part of a forest that training sees: the trained classes, the nodes that hold them, and their prompts.

Classes that a model must not see take no part: a node without a trained class vanishes, a node left with one child
stays but can never be scored (it is passed upward, METHODS.md 5.8), and a level left with one node is cut off like
the root. Level weights keep the depth of the whole tree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hierbench.datasets.spec import fill_template
from hierbench.errors import InputError
from hierbench.hierarchy.tree import Forest, Hierarchy


@dataclass(frozen=True)
class NodeLevel:
    """One level above the leaves. ``M`` nodes here, ``N`` in the next deeper level, ``K`` trained classes."""

    steps: int
    """l: steps above the leaves, 1 or more."""
    weight: float
    """w_l = 1 - l / (L + 1), L the depth of the whole tree."""
    prompt: Tensor
    """long [M]: each node's row among the prompts."""
    parent: Tensor
    """long [N]: for each node of the deeper level, its parent here."""
    children: Tensor
    """float [M, N]: 1 where the deeper node is a child."""
    self_pair: Tensor
    """bool [N]: the deeper node is a ragged leaf standing for itself here, and no child."""


@dataclass(frozen=True)
class TrainingTree:
    """The scored levels of one tree above the leaves, from l = 1 upward."""

    name: str
    depths: int
    """D of the whole tree."""
    levels: tuple[NodeLevel, ...]


@dataclass(frozen=True)
class TrainingNodes:
    """Trained classes and the nodes above them, in one or more trees."""

    classes: tuple[int, ...]
    """Label of each trained class in the data set, ascending; position k is class k of training."""
    prompts: tuple[str, ...]
    """Distinct prompts of all nodes; the first K belong to the classes, in order."""
    trees: tuple[TrainingTree, ...]

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.classes)

    @property
    def num_levels(self) -> int:
        """Levels of the deepest tree, leaves included."""
        return max(tree.depths for tree in self.trees)

    def to(self, device: torch.device | str) -> TrainingNodes:
        """Return the same nodes with tensors on a device."""
        return replace(
            self,
            trees=tuple(
                replace(tree, levels=tuple(_moved(level, device) for level in tree.levels)) for tree in self.trees
            ),
        )


def _moved(level: NodeLevel, device: torch.device | str) -> NodeLevel:
    tensors: dict[str, Any] = {
        name: getattr(level, name).to(device) for name in ("prompt", "parent", "children", "self_pair")
    }
    return replace(level, **tensors)


def training_nodes(forest: Forest, *, template: str, classes: Sequence[int] | None = None) -> TrainingNodes:
    """Restrict a forest to the classes that are trained (all of them for None).

    ``template`` makes a node's prompt. Fewer than two classes, a class given twice or outside the trees, and two
    classes with one prompt raise ``InputError``.
    """
    first = forest.trees[0]
    kept = list(range(first.num_leaves)) if classes is None else sorted(classes)
    if len(set(kept)) != len(kept):
        raise InputError("trained classes: a class is given twice")
    if len(kept) < 2:
        raise InputError(f"trained classes: {len(kept)} of {first.num_leaves} is too few; give at least 2")
    if kept[0] < 0 or kept[-1] >= first.num_leaves:
        raise InputError(f"trained classes: labels run from 0 to {first.num_leaves - 1}, got {kept[0]} to {kept[-1]}")
    rows: dict[str, int] = {}

    def row(name: str, noun: str) -> int:
        return rows.setdefault(fill_template(template, name, noun), len(rows))

    for place, label in enumerate(kept):
        leaf = first.leaves[label]
        if row(leaf.name, leaf.noun) != place:
            raise InputError(f"class {leaf.id!r}: another class has the same prompt; rename one in the class table")
    trees = []
    for tree in forest.trees:
        levels = []
        below = np.arange(len(kept))  # node of the deeper level that holds each trained class
        below_position = tree.levels[-1].positions[kept]
        for depth in range(tree.num_depths - 1, 0, -1):
            level = tree.level(depth)
            used, here = np.unique(level.leaf_to_node[kept], return_inverse=True)
            if len(used) < 2:
                break
            parent = np.empty(len(below_position), dtype=np.int64)
            parent[below] = here
            children = np.zeros((len(used), len(below_position)), dtype=np.float32)
            children[parent, np.arange(len(below_position))] = 1.0
            position = level.positions[used]
            steps = tree.num_depths - depth
            levels.append(
                NodeLevel(
                    steps=steps,
                    weight=level_weight(steps, tree),
                    prompt=torch.tensor([row(level.nodes[i].name, level.nodes[i].noun) for i in used]),
                    parent=torch.from_numpy(parent),
                    children=torch.from_numpy(children),
                    self_pair=torch.from_numpy(position[parent] == below_position),
                )
            )
            below, below_position = here, position
        trees.append(TrainingTree(name=tree.tree, depths=tree.num_depths, levels=tuple(levels)))
    return TrainingNodes(classes=tuple(kept), prompts=tuple(rows), trees=tuple(trees))


def level_weight(steps_above_leaf: int, tree: Hierarchy) -> float:
    """Return w_l = 1 - l / (L + 1) with L = D, the root's level (METHODS.md 1)."""
    return 1.0 - steps_above_leaf / (tree.num_depths + 1)
