"""Trees for tests: one small ragged tree by hand, and random ragged trees with random nested levels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from hierbench.hierarchy.content import content_hash

Content = dict[str, Any]

# Label order is not the order in which a walk meets the leaves.
SMALL_CLASSES = ["truck", "cat", "wolf", "rock", "dog", "car", "fox"]


def node(node_id: str, parent: str | None, **more: str) -> Content:
    return {"id": node_id, "parent": parent, "name": node_id, "noun": f"a {node_id}", **more}


def small_content() -> Content:
    """thing > animal > pet > cat, dog; animal > wild > wolf, fox; vehicle > car, truck; rock (ragged)."""
    content: Content = {
        "format": 1,
        "dataset": "toys",
        "tree": "small",
        "title": "Small",
        "description": "A small ragged tree.",
        "default": True,
        "source": "written for the tests",
        "licence": "Apache-2.0",
        "levelling": "By hand.",
        "classes": list(SMALL_CLASSES),
        "nodes": [
            node("thing", None),
            node("animal", "thing", wordnet="n00015388"),
            node("pet", "animal"),
            node("cat", "pet"),
            node("dog", "pet"),
            node("wild", "animal"),
            node("wolf", "wild"),
            node("fox", "wild"),
            node("vehicle", "thing"),
            node("car", "vehicle"),
            node("truck", "vehicle"),
            node("rock", "thing"),
        ],
        "levels": [
            ["animal", "vehicle", "rock"],
            ["rock", "pet", "wild", "vehicle"],
            list(SMALL_CLASSES),
        ],
    }
    return rehash(content)


def rehash(content: Content) -> Content:
    content["hash"] = content_hash(content)
    return content


def save(content: object, path: Path) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def find(content: Content, node_id: str) -> Content:
    return next(entry for entry in content["nodes"] if entry["id"] == node_id)


def caterpillar(leaves: int) -> Content:
    """A tree as deep as it can be: every inner node has one leaf and the next inner node."""
    classes = [f"leaf{i}" for i in range(leaves)]
    nodes = [node("spine0", None)]
    for i in range(leaves - 2):
        nodes += [node(f"leaf{i}", f"spine{i}"), node(f"spine{i + 1}", f"spine{i}")]
    nodes += [node(f"leaf{i}", f"spine{leaves - 2}") for i in (leaves - 2, leaves - 1)]
    return rehash({**small_content(), "classes": classes, "nodes": nodes, "levels": [["leaf0", "spine1"], classes]})


def balanced(*, fan: int, steps: int) -> Content:
    """Every inner node has ``fan`` children and every leaf is ``steps`` edges below the root."""
    nodes, above, levels = [node("n", None)], ["n"], []
    for _ in range(steps):
        below = [f"{parent}.{i}" for parent in above for i in range(fan)]
        nodes += [node(child, child.rpartition(".")[0]) for child in below]
        levels.append(below)
        above = below
    return rehash({**small_content(), "classes": above, "nodes": nodes, "levels": levels})


@st.composite
def random_contents(draw: st.DrawFn, max_leaves: int = 14) -> Content:
    """A random tree without single-child chains, nodes and labels in random order, and random nested levels."""
    parent_of: dict[str, str | None] = {"t0": None}
    children: dict[str, list[str]] = {"t0": []}
    count = draw(st.integers(2, max_leaves))
    leaves = ["t0"]
    while len(leaves) < count:
        # Growing a leaf by k children adds k - 1 leaves.
        grown = draw(st.sampled_from(leaves))
        added = draw(st.integers(2, max(2, count - len(leaves) + 1)))
        for _ in range(added):
            child = f"t{len(parent_of)}"
            parent_of[child], children[child] = grown, []
            children[grown].append(child)
        leaves = [name for name in parent_of if not children[name]]
    classes = draw(st.permutations(leaves))
    levels = [list(classes)]
    cut = list(children["t0"])
    found: list[list[str]] = []
    while set(cut) != set(leaves):
        if draw(st.booleans()):
            found.append(draw(st.permutations(cut)))
        opened = draw(st.sampled_from([name for name in cut if children[name]]))
        cut = [name for name in cut if name != opened] + children[opened]
    nodes = [node(name, parent_of[name]) for name in draw(st.permutations(list(parent_of)))]
    return rehash({**small_content(), "classes": list(classes), "nodes": nodes, "levels": found + levels})
