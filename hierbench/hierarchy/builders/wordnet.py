"""Builds a data set's class tree from the hypernyms of WordNet 3.0 (METHODS.md section 1).

Every class is a synset. Its parent is its hypernym with the largest ``max_depth``, ties by synset name; three synsets
are re-attached; inner nodes with a single child are left out. A class that is an ancestor of another class, or shares
its synset with one, becomes a leaf under the node of that synset, which then stands for the group. The tree's field
``choices`` holds one line for each of these decisions.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hierbench.errors import InputError
from hierbench.hierarchy.builders.recipe import Recipe, Words, read_names, read_recipe
from hierbench.hierarchy.builders.synsets import NounTree, children_of, sense_choice
from hierbench.hierarchy.class_table import LeafClass
from hierbench.hierarchy.content import FORMAT, Content, content_hash, node_content
from hierbench.hierarchy.errors import HierarchyError
from hierbench.hierarchy.load import hierarchy_from_content
from hierbench.hierarchy.restrict import restrict
from hierbench.hierarchy.tree import Hierarchy, Node
from hierbench.paths import data_dir

TREE = "wordnet"
RECIPE = f"{TREE}.recipe"


@dataclass(frozen=True)
class _Branch:
    """An inner node while the tree is made: its synset, and below it branches and classes by id."""

    wnid: str
    branches: tuple[_Branch, ...]
    classes: tuple[str, ...]
    first: int
    """The lowest label under it, by which the children of a node are ordered."""
    size: int
    """How many classes are under it."""


def recipe_path(dataset: str) -> Path:
    """Return where a data set's recipe is; one without a recipe raises ``InputError`` naming those with one.

    A pixel grid in the name (``tiny_imagenet@32``) changes no tree.
    """
    folder = data_dir() / "hierarchies"
    known = sorted(found.parent.name for found in folder.glob(f"*/{RECIPE}"))
    base = dataset.partition("@")[0]
    if base not in known:
        raise InputError(f"no WordNet recipe for dataset {dataset!r}: there is one for {', '.join(known) or 'none'}")
    return folder / base / RECIPE


def build_wordnet_file(
    path: str | os.PathLike[str], classes_of: Callable[[str], Sequence[LeafClass]], wordnet: Any
) -> Hierarchy:
    """Build the tree of a recipe file over the classes that ``classes_of`` gives by data set name.

    ``wordnet`` is nltk's reader of WordNet 3.0 (``hierbench.wordnet.open_wordnet``). What is wrong with the recipe, a
    class or a name raises ``InputError``.
    """
    recipe = read_recipe(path)
    names = read_names(data_dir() / "hierarchies" / "wordnet-names.tsv")
    classes = classes_of(recipe.dataset)
    if recipe.restrict is None:
        return build_wordnet(recipe, classes, names, wordnet)
    whole_recipe = read_recipe(recipe_path(recipe.restrict))
    if whole_recipe.restrict is not None:
        raise HierarchyError(
            recipe.where, f"header 'restrict': the tree of '{recipe.restrict}' is itself a restriction"
        )
    whole = build_wordnet(whole_recipe, classes_of(recipe.restrict), names, wordnet)
    _, choices = _grow(classes, whole_recipe.places, NounTree(wordnet), where=recipe.where)
    return restrict(
        whole,
        [row.id for row in classes],
        dataset=recipe.dataset,
        title=recipe.title,
        description=recipe.description,
        default=recipe.default,
        source=f"{recipe.source}; {whole.dataset}/{whole.tree} {whole.content_hash}",
        choices=choices,
        renamed={wnid: (words.name, words.noun) for wnid, words in recipe.names.items()},
    )


def build_wordnet(recipe: Recipe, classes: Sequence[LeafClass], names: Mapping[str, Words], wordnet: Any) -> Hierarchy:
    """Build the tree of a recipe with ``sizes`` over the given classes (label order); errors as for a file."""
    noun_tree = NounTree(wordnet)
    top, choices = _grow(classes, recipe.places, noun_tree, where=recipe.where)
    nodes, ids = _nodes(top, {row.id: row for row in classes}, {**names, **recipe.names}, noun_tree, recipe.where)
    content: Content = {
        "format": FORMAT,
        "dataset": recipe.dataset,
        "tree": TREE,
        "title": recipe.title,
        "description": recipe.description,
        "default": recipe.default,
        "source": recipe.source,
        "licence": recipe.licence,
        "levelling": _levelling(recipe.sizes),
        **({"choices": choices} if choices else {}),
        "classes": [row.id for row in classes],
        "nodes": [node_content(node) for node in nodes],
        "levels": [*(_cut(top, size, ids) for size in recipe.sizes), [row.id for row in classes]],
    }
    content["hash"] = content_hash(content)
    return hierarchy_from_content(content, where=recipe.where)


def _grow(
    classes: Sequence[LeafClass], places: Mapping[str, str], noun_tree: NounTree, *, where: str
) -> tuple[_Branch, list[str]]:
    """Hang every class below WordNet's nouns, leave out single-child nodes, and say what was decided."""
    label = {row.id: index for index, row in enumerate(classes)}
    for class_id in places:
        if class_id not in label:
            raise HierarchyError(where, f"line 'place {class_id}': the data set has no such class")
    picked: list[str] = []
    at: dict[str, list[str]] = {}
    below: dict[str, list[str]] = {}
    for row in classes:
        if row.id in places:
            below.setdefault(places[row.id], []).append(row.id)
            picked.append(f"class {row.id}: placed under {noun_tree.label(places[row.id])}")
        elif row.wordnet is None:
            raise HierarchyError(
                where, f"class {row.id!r} has no WordNet id: a line 'place {row.id} n...' says under which synset it is"
            )
        else:
            at.setdefault(row.wordnet, []).append(row.id)
            sense = None if row.id == row.wordnet else sense_choice(noun_tree, row.id, row.name, row.wordnet)
            picked += [sense] if sense else []
    for wnid in (*at, *below):
        noun_tree.climb(wnid)
    roots = [wnid for wnid, above in noun_tree.parents.items() if above is None]
    if len(roots) > 1:
        raise InputError(f"{where}: the classes meet in no common synset, only in {' and '.join(roots)}")
    children = children_of(noun_tree.parents)
    own_leaf = {wnid for wnid, ids in at.items() if len(ids) > 1 or children[wnid] or wnid in below}
    for wnid in sorted(own_leaf):
        why = "shared by several classes" if len(at[wnid]) > 1 else "above other classes"
        each = "a leaf" if len(at[wnid]) == 1 else "leaves"
        picked.append(f"{noun_tree.label(wnid)} is {why}: its own, {', '.join(at[wnid])}, became {each} under it")
    grown: dict[str, _Branch | str] = {}
    for wnid in _upward(roots[0], children):
        if wnid in at and wnid not in own_leaf:
            grown[wnid] = at[wnid][0]
            continue
        parts = [grown[child] for child in children[wnid]]
        parts += [*(at[wnid] if wnid in own_leaf else []), *below.get(wnid, [])]
        grown[wnid] = parts[0] if len(parts) == 1 else _branch(wnid, parts, label)
    top = grown[roots[0]]
    if isinstance(top, str):
        raise HierarchyError(where, "a tree needs two classes or more")
    return top, noun_tree.choices() + picked


def _upward(root: str, children: Mapping[str, Sequence[str]]) -> list[str]:
    """Return all nodes, children before their parents."""
    order: list[str] = []
    waiting = [root]
    while waiting:
        node = waiting.pop()
        order.append(node)
        waiting.extend(children[node])
    return order[::-1]


def _branch(wnid: str, parts: Sequence[_Branch | str], label: Mapping[str, int]) -> _Branch:
    branches = sorted((part for part in parts if isinstance(part, _Branch)), key=lambda part: part.first)
    classes = sorted((part for part in parts if isinstance(part, str)), key=label.__getitem__)
    firsts = [*(part.first for part in branches), *(label[class_id] for class_id in classes)]
    size = sum(part.size for part in branches) + len(classes)
    return _Branch(wnid, tuple(branches), tuple(classes), min(firsts), size)


def _nodes(
    top: _Branch, rows: Mapping[str, LeafClass], names: Mapping[str, Words], noun_tree: NounTree, where: str
) -> tuple[list[Node], dict[str, str]]:
    """Return each node, then its classes, then its branches, and the id of each branch by synset."""
    nodes: list[Node] = []
    ids: dict[str, str] = {}
    nameless: list[str] = []
    waiting: list[tuple[_Branch, str | None]] = [(top, None)]
    while waiting:
        branch, parent = waiting.pop()
        # the node of a synset that is also a class: ImageNet's classes are called by their synsets
        node_id = f"{branch.wnid}.group" if branch.wnid in rows else branch.wnid
        ids[branch.wnid] = node_id
        words = names.get(branch.wnid)
        if words is None:
            nameless.append(branch.wnid)
            words = Words("?", "?")
        nodes.append(Node(node_id, parent, words.name, words.noun, branch.wnid))
        for class_id in branch.classes:
            row = rows[class_id]
            nodes.append(Node(row.id, node_id, row.name, row.noun, row.wordnet))
        waiting.extend((below, node_id) for below in reversed(branch.branches))
    if nameless:
        more = f" (and {len(nameless) - 1} more: {', '.join(nameless[1:6])})" if len(nameless) > 1 else ""
        raise HierarchyError(
            where,
            f"{noun_tree.label(nameless[0])} has no English name{more}: add it to wordnet-names.tsv, or a line "
            f"'name {nameless[0]} | name | noun phrase'",
        )
    return nodes, ids


def _cut(top: _Branch, size: int, ids: Mapping[str, str]) -> list[str]:
    """Return the ids of the topmost nodes with at most ``size`` classes, in the order of the walk."""
    cut: list[str] = []
    waiting: list[_Branch | str] = [top]
    while waiting:
        node = waiting.pop()
        if isinstance(node, str):
            cut.append(node)
        elif node.size <= size:
            cut.append(ids[node.wnid])
        else:
            waiting.extend(reversed((*node.branches, *node.classes)))
    return cut


def _levelling(sizes: Sequence[int]) -> str:
    if len(sizes) == 1:
        return f"Depth 1 holds the topmost nodes with at most {sizes[0]} classes, depth 2 the classes."
    numbers = ", ".join(str(size) for size in sizes[:-1]) + f" and {sizes[-1]}"
    return (
        f"Depths 1 to {len(sizes)} hold the topmost nodes with at most {numbers} classes, a class further up standing "
        f"for itself; depth {len(sizes) + 1} the classes."
    )
