"""What differs between two trees over the same classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hierbench.errors import InputError
from hierbench.hierarchy.shape import IntArray
from hierbench.hierarchy.text import same_text_key
from hierbench.hierarchy.tree import Hierarchy, Node


@dataclass(frozen=True)
class Moved:
    """A class that stands in another superclass at some depth: its label, and the node that holds it in each tree."""

    label: int
    before: Node
    after: Node


@dataclass(frozen=True)
class DepthDiff:
    """One depth of the first tree against the second one.

    ``agreement`` is the adjusted Rand index of the two cuts of that depth: 1 for the same partition, 0 on average for
    one drawn at random with the same sizes; None where the second tree is not that deep. ``best_depth`` is the depth
    of the second tree that agrees best, ``best_agreement`` how well.
    """

    depth: int
    before: int
    after: int | None
    agreement: float | None
    best_depth: int
    best_agreement: float
    moved: tuple[Moved, ...]


@dataclass(frozen=True)
class TreeDiff:
    """Two trees compared; ``only_before`` and ``only_after`` are inner nodes, by id, that one of them has alone."""

    before: Hierarchy
    after: Hierarchy
    depths: tuple[DepthDiff, ...]
    only_before: tuple[Node, ...]
    only_after: tuple[Node, ...]


def diff(before: Hierarchy, after: Hierarchy) -> TreeDiff:
    """Compare two trees over the same classes in the same order; other classes raise ``InputError``.

    A class has moved at a depth if the two nodes that hold it there differ in id, in noun and in the classes they
    hold: a superclass that was only renamed, or only lost another class, moves nobody. The leaves, the last depth of
    both, are left out.
    """
    ids, others = ([leaf.id for leaf in tree.leaves] for tree in (before, after))
    if ids != others:
        where = f"'{before.dataset}/{before.tree}' and '{after.dataset}/{after.tree}'"
        strays = sorted(set(ids) ^ set(others))
        said = f"class {strays[0]!r} is in one only" if strays else "they have the same ones in different orders"
        raise InputError(f"hierarchies {where} are over different classes: {said}")
    depths = tuple(_at_depth(before, after, depth) for depth in range(1, before.num_depths))
    mine, theirs = ({node.id for node in tree.nodes} for tree in (before, after))
    return TreeDiff(
        before=before,
        after=after,
        depths=depths,
        only_before=tuple(node for node in before.nodes if node.id not in theirs),
        only_after=tuple(node for node in after.nodes if node.id not in mine),
    )


def adjusted_rand_index(first: IntArray, second: IntArray) -> float:
    """Return the adjusted Rand index of two partitions, each the part of every element [n] (Hubert and Arabie 1985).

    Two partitions of which each is one part, or each all single elements, are the same and score 1.
    """
    table = np.zeros((int(first.max()) + 1, int(second.max()) + 1), dtype=np.int64)
    np.add.at(table, (first, second), 1)
    together, rows, columns = (_pairs(counts) for counts in (table, table.sum(axis=1), table.sum(axis=0)))
    expected = rows * columns / _pairs(np.array([len(first)]))
    most = (rows + columns) / 2
    return 1.0 if most == expected else float((together - expected) / (most - expected))


def _pairs(counts: IntArray) -> float:
    return float((counts * (counts - 1) // 2).sum())


def _at_depth(before: Hierarchy, after: Hierarchy, depth: int) -> DepthDiff:
    level = before.level(depth)
    scores = [adjusted_rand_index(level.leaf_to_node, other.leaf_to_node) for other in after.levels]
    best = max(range(len(scores)), key=scores.__getitem__)
    there = depth < after.num_depths
    return DepthDiff(
        depth=depth,
        before=len(level),
        after=len(after.level(depth)) if there else None,
        agreement=scores[depth - 1] if there else None,
        best_depth=best + 1,
        best_agreement=scores[best],
        moved=_moved(before, after, depth) if there else (),
    )


def _moved(before: Hierarchy, after: Hierarchy, depth: int) -> tuple[Moved, ...]:
    old, new = before.level(depth), after.level(depth)
    moved: list[Moved] = []
    for label, (i, j) in enumerate(zip(old.leaf_to_node.tolist(), new.leaf_to_node.tolist(), strict=True)):
        mine, theirs = old.nodes[i], new.nodes[j]
        if mine.id == theirs.id or same_text_key(mine.noun) == same_text_key(theirs.noun):
            continue
        if not np.array_equal(old.leaf_to_node == i, new.leaf_to_node == j):
            moved.append(Moved(label, mine, theirs))
    return tuple(moved)
