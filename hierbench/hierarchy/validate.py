"""What no schema can say: that the nodes are one tree, the leaves the classes, and the levels nested cuts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hierbench.hierarchy.errors import HierarchyError, shown
from hierbench.hierarchy.shape import IntArray, TreeShape, child_lists, frozen_ints, tree_shape
from hierbench.hierarchy.text import line_problem, name_problem, same_text_key
from hierbench.hierarchy.tree import Level, Node


def check_line(value: str, *, field: str, where: str) -> None:
    """Refuse a line of provenance that is empty, too long or holds control characters."""
    problem = line_problem(value)
    if problem is not None:
        raise HierarchyError(where, f"field {field!r} {problem}")


def check_names(nodes: Sequence[Node], *, where: str) -> None:
    """Refuse names and nouns that are not plain text."""
    for node in nodes:
        for field, value in (("name", node.name), ("noun", node.noun)):
            problem = name_problem(value)
            if problem is not None:
                raise HierarchyError(where, f"node {shown(node.id)}: field {field!r} {problem}", node=node.id)


def check_tree(nodes: Sequence[Node], *, where: str) -> tuple[dict[str, int], list[int]]:
    """Check that the nodes are one rooted tree without single-child chains.

    Returns each id's position, and each node's parent's position (-1 at the root).
    """
    positions: dict[str, int] = {}
    for position, node in enumerate(nodes):
        first = positions.setdefault(node.id, position)
        if first != position:
            a, b = nodes[first].parent, node.parent
            said = f"has two parents, {shown(a)} and {shown(b)}" if a != b else "is listed twice"
            raise HierarchyError(where, f"node {shown(node.id)} {said}", node=node.id)
    roots = [node.id for node in nodes if node.parent is None]
    if len(roots) > 1:
        raise HierarchyError(
            where,
            f"nodes {shown(roots[0])} and {shown(roots[1])} both have no parent: a tree has one root",
            node=roots[1],
        )
    parent: list[int] = []
    for node in nodes:
        above = -1 if node.parent is None else positions.get(node.parent)
        if above is None:
            raise HierarchyError(
                where, f"node {shown(node.id)}: parent {shown(node.parent)} is not a node of the file", node=node.id
            )
        parent.append(above)
    _check_no_cycle(nodes, parent, where=where)
    if not roots:
        raise HierarchyError(where, 'no node is the root: one node has "parent": null')
    for node, below in zip(nodes, child_lists(parent), strict=True):
        if len(below) == 1:
            raise HierarchyError(
                where,
                f"node {shown(node.id)} has the single child {shown(nodes[below[0]].id)}: merge the two",
                node=node.id,
            )
    return positions, parent


def _check_no_cycle(nodes: Sequence[Node], parent: Sequence[int], *, where: str) -> None:
    """Walk up from every node once; meeting the walk's own trail is a cycle."""
    seen_in = [-1] * len(parent)
    for start in range(len(parent)):
        node = start
        while node >= 0 and seen_in[node] < 0:
            seen_in[node] = start
            node = parent[node]
        if node >= 0 and seen_in[node] == start:
            above = nodes[parent[node]].id
            said = "is its own parent" if above == nodes[node].id else f"is in a cycle through {shown(above)}"
            raise HierarchyError(where, f"node {shown(nodes[node].id)} {said}", node=nodes[node].id)


def check_classes(
    classes: Sequence[str],
    nodes: Sequence[Node],
    positions: dict[str, int],
    parent: Sequence[int],
    *,
    where: str,
) -> None:
    """Check that the classes are exactly the leaves."""
    inner = set(parent)
    seen: set[str] = set()
    for class_id in classes:
        if class_id in seen:
            raise HierarchyError(where, f"class {shown(class_id)} is listed twice in 'classes'", node=class_id)
        seen.add(class_id)
        position = positions.get(class_id)
        if position is None:
            raise HierarchyError(where, f"class {shown(class_id)} has no node", node=class_id)
        if position in inner:
            raise HierarchyError(where, f"class {shown(class_id)} has children: classes are leaves", node=class_id)
    for position, node in enumerate(nodes):
        if position not in inner and node.id not in seen:
            raise HierarchyError(where, f"node {shown(node.id)} has no children and is not in 'classes'", node=node.id)


def check_class_order(found: Sequence[str], expected: Sequence[str], *, where: str) -> None:
    """Check the file's classes against the data set's, in label order."""
    known, present = set(expected), set(found)
    for class_id in found:
        if class_id not in known:
            raise HierarchyError(where, f"class {shown(class_id)} is not a class of the data set", node=class_id)
    for class_id in expected:
        if class_id not in present:
            raise HierarchyError(where, f"class {shown(class_id)} of the data set is missing", node=class_id)
    for label, (mine, right) in enumerate(zip(found, expected, strict=True)):
        if mine != right:
            raise HierarchyError(
                where,
                f"class {shown(mine)} is in the wrong place: label {label} of the data set is {shown(right)}",
                node=mine,
            )


def checked_levels(
    level_ids: Sequence[Sequence[str]],
    classes: Sequence[str],
    nodes: Sequence[Node],
    positions: dict[str, int],
    shape: TreeShape,
    *,
    where: str,
) -> tuple[Level, ...]:
    """Check that the levels are nested cuts, the last one the classes, and return them."""
    levels: list[Level] = []
    for depth, ids in enumerate(level_ids, start=1):
        members = _level_positions(ids, positions, depth=depth, where=where)
        leaf_to_node = _partition(members, nodes, shape, depth=depth, where=where)
        level = Level(depth, tuple(nodes[p] for p in members), leaf_to_node, frozen_ints(members))
        _check_nouns(level, where=where)
        if levels:
            _check_nested(levels[-1], level, where=where)
        levels.append(level)
    if list(level_ids[-1]) != list(classes):
        raise HierarchyError(where, f"level {len(level_ids)}, the last, is not 'classes' in label order")
    return tuple(levels)


def _level_positions(ids: Sequence[str], positions: dict[str, int], *, depth: int, where: str) -> list[int]:
    if len(ids) < 2:
        raise HierarchyError(
            where, f"level {depth} has {len(ids)} node: a level needs two or there is nothing to decide"
        )
    members: dict[int, None] = {}
    for node_id in ids:
        position = positions.get(node_id)
        if position is None:
            raise HierarchyError(where, f"level {depth}: {shown(node_id)} is not a node of the file", node=node_id)
        if position in members:
            raise HierarchyError(where, f"level {depth}: node {shown(node_id)} is listed twice", node=node_id)
        members[position] = None
    return list(members)


def _partition(members: Sequence[int], nodes: Sequence[Node], shape: TreeShape, *, depth: int, where: str) -> IntArray:
    """Check that the nodes hold every leaf exactly once; return the index of the node that holds each leaf [C]."""
    first, last = shape.first_leaf[members], shape.last_leaf[members]
    order = np.argsort(first, kind="stable")
    covered, holder = 0, -1
    for index in order.tolist():
        node = nodes[members[index]].id
        if first[index] < covered:
            leaf = nodes[int(shape.leaf_nodes[shape.leaf_order[first[index]]])].id
            other = nodes[members[holder]].id
            raise HierarchyError(
                where,
                f"level {depth} is no partition: {shown(other)} and {shown(node)} both hold leaf {shown(leaf)}",
                node=node,
            )
        if first[index] > covered:
            break
        covered, holder = int(last[index]), index
    if covered < len(shape.leaf_nodes):
        leaf = nodes[int(shape.leaf_nodes[shape.leaf_order[covered]])].id
        raise HierarchyError(where, f"level {depth} is no partition: no node of it holds leaf {shown(leaf)}", node=leaf)
    leaf_to_node = np.empty(len(shape.leaf_nodes), dtype=np.int64)
    leaf_to_node[shape.leaf_order] = np.repeat(order, (last - first)[order])
    leaf_to_node.setflags(write=False)
    return leaf_to_node


def _check_nested(coarse: Level, fine: Level, *, where: str) -> None:
    """Check that every node of the finer level lies in one node of the coarser, and that the two differ."""
    above = np.empty(len(fine), dtype=np.int64)
    above[fine.leaf_to_node] = coarse.leaf_to_node
    strays = np.flatnonzero(above[fine.leaf_to_node] != coarse.leaf_to_node)
    if len(strays):
        node = fine.nodes[int(fine.leaf_to_node[strays[0]])].id
        raise HierarchyError(
            where,
            f"levels {coarse.depth} and {fine.depth} are not nested: node {shown(node)} of level {fine.depth} "
            f"lies in more than one node of level {coarse.depth}",
            node=node,
        )
    if len(fine) == len(coarse):
        raise HierarchyError(where, f"levels {coarse.depth} and {fine.depth} are the same cut: leave one out")


def _check_nouns(level: Level, *, where: str) -> None:
    """Two nodes with one prompt cannot be told apart under direct scoring."""
    seen: dict[str, str] = {}
    for node in level.nodes:
        first = seen.setdefault(same_text_key(node.noun), node.id)
        if first != node.id:
            raise HierarchyError(
                where,
                f"level {level.depth}: nodes {shown(first)} and {shown(node.id)} share the noun {shown(node.noun)}",
                node=node.id,
            )


def checked_shape(parent: Sequence[int], classes: Sequence[str], positions: dict[str, int]) -> TreeShape:
    """Return the shape of a tree whose nodes and classes have been checked."""
    return tree_shape(parent, [positions[class_id] for class_id in classes])
