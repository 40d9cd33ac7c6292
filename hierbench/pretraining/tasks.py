"""What the images are classified into during pre-training: known leaves, and nodes of every level of every tree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hierbench.datasets.images import ImageSet
from hierbench.datasets.seen import SeenSplit
from hierbench.datasets.spec import DatasetSpec
from hierbench.hierarchy.catalogue import list_hierarchies, load_hierarchy


@dataclass(frozen=True)
class Concept:
    """A thing to name in a caption: bare name, noun phrase, and the noun phrase one level up (or None)."""

    name: str
    noun: str
    parent: str | None


@dataclass(frozen=True)
class Task:
    """One softmax: columns ``start:stop`` of the concept list, and the column of each label (-1: no such label)."""

    dataset: str
    depth_name: str
    start: int
    stop: int
    target: npt.NDArray[np.int64]
    weight: float


def build_tasks(specs: Sequence[DatasetSpec], seen: SeenSplit) -> tuple[list[Concept], list[Task]]:
    """Return all concepts and all softmax tasks over them.

    The leaf task of a data set weighs 1; the superclass levels of all its trees share 0.5. Unseen classes
    have no column, nor has a node without a known class.
    """
    concepts: list[Concept] = []
    tasks: list[Task] = []
    for spec in specs:
        known = np.array(seen.known_mask(spec.name))
        trees = [load_hierarchy(spec.base_name, t) for d, t in list_hierarchies() if d == spec.base_name]
        start = len(concepts)
        target = np.full(len(known), -1, dtype=np.int64)
        target[known] = np.arange(known.sum())
        parent_nouns = _parents(spec, trees)
        concepts += [Concept(c.name, c.noun, parent_nouns[i]) for i, c in enumerate(spec.classes) if known[i]]
        tasks.append(Task(spec.name, "leaf", start, len(concepts), target, 1.0))
        levels = [(tree, level) for tree in trees for level in tree.levels[:-1]]
        for tree, level in levels:
            used = sorted(set(level.leaf_to_node[known].tolist()))
            if len(used) < 2:
                continue
            place = {node: i for i, node in enumerate(used)}
            start = len(concepts)
            concepts += [Concept(level.nodes[n].name, level.nodes[n].noun, None) for n in used]
            columns = np.array([place.get(int(n), -1) for n in level.leaf_to_node], dtype=np.int64)
            columns[~known] = -1
            name = f"{tree.tree} depth {level.depth}"
            tasks.append(Task(spec.name, name, start, len(concepts), columns, 0.5 / len(levels)))
    return concepts, tasks


def _parents(spec: DatasetSpec, trees: Sequence[object]) -> list[str | None]:
    nouns: list[str | None] = [None] * len(spec.classes)
    for tree in trees:
        levels = tree.levels  # type: ignore[attr-defined]
        if len(levels) < 2:
            continue
        above = levels[-2]
        for leaf, node in enumerate(above.leaf_to_node.tolist()):
            nouns[leaf] = above.nodes[node].noun
    return nouns


def known_training_images(images: ImageSet, seen: SeenSplit) -> ImageSet:
    """Return the images of classes that training may use."""
    return images.of_classes(seen.known(images.spec.name))
