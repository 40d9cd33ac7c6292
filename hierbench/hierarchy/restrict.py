"""The tree that some of a tree's classes make among themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hierbench.errors import InputError
from hierbench.hierarchy.content import Content, content_hash, hierarchy_content, node_content
from hierbench.hierarchy.load import hierarchy_from_content
from hierbench.hierarchy.shape import child_lists
from hierbench.hierarchy.tree import Hierarchy, Node


def restrict(
    hierarchy: Hierarchy,
    class_ids: Sequence[str],
    *,
    dataset: str,
    tree: str | None = None,
    title: str | None = None,
    description: str | None = None,
    default: bool = False,
    source: str | None = None,
    choices: Sequence[str] | None = None,
    renamed: Mapping[str, tuple[str, str]] | None = None,
) -> Hierarchy:
    """Return the induced tree over some of the classes, in the label order given.

    A node left with a single child is merged with that child, and keeps the child's name. Each level keeps the nodes
    that still hold a class; a level that becomes the same cut as the next one, or a single node, is left out. What is
    not given is taken from ``hierarchy``; ``renamed`` gives inner nodes, by id, another name and noun. A class that
    the tree does not have, one given twice, fewer than two, or a level in which two nouns meet raises ``InputError``.
    """
    where = f"hierarchy '{hierarchy.dataset}/{hierarchy.tree}' restricted to '{dataset}'"
    label = {leaf.id: index for index, leaf in enumerate(hierarchy.leaves)}
    for class_id in class_ids:
        if class_id not in label:
            raise InputError(f"{where}: class {class_id!r} is not in the tree")
    if len(set(class_ids)) != len(class_ids) or len(class_ids) < 2:
        raise InputError(f"{where}: two classes or more are needed, none twice")
    stands_for = _merged(hierarchy, [label[class_id] for class_id in class_ids])
    nodes = _kept_nodes(hierarchy, stands_for, renamed or {})
    content: Content = {
        **hierarchy_content(hierarchy),
        "dataset": dataset,
        "tree": tree or hierarchy.tree,
        "title": title or hierarchy.title,
        "description": description or hierarchy.description,
        "default": default,
        "source": source or f"{hierarchy.dataset}/{hierarchy.tree} {hierarchy.content_hash}, restricted",
        "levelling": (
            f"The levels of {hierarchy.dataset}/{hierarchy.tree}, restricted; one that became a single node or the "
            f"next one's cut is left out. There: {hierarchy.levelling}"
        ),
        "choices": list(hierarchy.choices if choices is None else choices),
        "classes": list(class_ids),
        "nodes": [node_content(node) for node in nodes],
        "levels": _kept_levels(hierarchy, stands_for, list(class_ids)),
    }
    if not content["choices"]:
        del content["choices"]
    content["hash"] = content_hash(content)
    return hierarchy_from_content(content, where=where, classes=class_ids)


def _merged(hierarchy: Hierarchy, labels: Sequence[int]) -> dict[int, int]:
    """Return, for each node that still holds a class, the node that stands for it: itself, or its one child's."""
    children = child_lists(hierarchy.shape.parent.tolist())
    leaves = set(hierarchy.shape.leaf_nodes[list(labels)].tolist())
    stands_for: dict[int, int] = {}
    for position in reversed(hierarchy.shape.walk.tolist()):
        if position in leaves:
            stands_for[position] = position
            continue
        kept = [child for child in children[position] if child in stands_for]
        if kept:
            stands_for[position] = stands_for[kept[0]] if len(kept) == 1 else position
    return stands_for


def _kept_nodes(hierarchy: Hierarchy, stands_for: dict[int, int], renamed: Mapping[str, tuple[str, str]]) -> list[Node]:
    """Return the nodes that stand for themselves, in the old order, each under the next such node above."""
    nodes: list[Node] = []
    for position, node in enumerate(hierarchy.nodes):
        if stands_for.get(position) != position:
            continue
        above = int(hierarchy.shape.parent[position])
        while above >= 0 and stands_for[above] != above:
            above = int(hierarchy.shape.parent[above])
        parent = hierarchy.nodes[above].id if above >= 0 else None
        name, noun = renamed.get(node.id, (node.name, node.noun))
        nodes.append(Node(node.id, parent, name, noun, node.wordnet))
    return nodes


def _kept_levels(hierarchy: Hierarchy, stands_for: dict[int, int], class_ids: list[str]) -> list[list[str]]:
    levels: list[list[str]] = [class_ids]
    for level in reversed(hierarchy.levels[:-1]):
        kept = [stands_for[p] for p in level.positions.tolist() if p in stands_for]
        ids = [hierarchy.nodes[position].id for position in kept]
        if 1 < len(ids) < len(levels[0]):
            levels.insert(0, ids)
    return levels
