"""Control trees: the same shape with the leaves permuted (METHODS.md section 5.9)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from hierbench.hierarchy.content import Content, content_hash, hierarchy_content, node_content
from hierbench.hierarchy.load import hierarchy_from_content
from hierbench.hierarchy.tree import Hierarchy, Node


def shuffle(hierarchy: Hierarchy, seed: int) -> Hierarchy:
    """Return a tree of the same shape whose leaves have changed places.

    Without it no gain can be credited to semantics. Inner nodes keep their names, so that prompts and level sizes stay
    as they were and only their meaning goes. The permutation orders the classes by BLAKE2b of (seed, class id): it
    depends on nothing else and never changes with a library. The tree is named ``<tree>-shuffled<seed>`` and is never
    a default. A ragged level in which the shuffle makes two nouns meet raises ``HierarchyError``: take another seed.
    """
    ids = [leaf.id for leaf in hierarchy.leaves]
    moved = dict(zip(ids, permuted(ids, seed), strict=True))
    place = {leaf.id: leaf for leaf in hierarchy.leaves}
    nodes = [
        Node(place[moved[node.id]].id, node.parent, *_words(place[moved[node.id]])) if node.id in moved else node
        for node in hierarchy.nodes
    ]
    content: Content = {
        **hierarchy_content(hierarchy),
        "tree": f"{hierarchy.tree}-shuffled{seed}",
        "title": f"{hierarchy.title}, leaves permuted (seed {seed})",
        "description": f"Control: the shape of '{hierarchy.tree}' with its leaves permuted.",
        "default": False,
        "source": f"{hierarchy.dataset}/{hierarchy.tree} {hierarchy.content_hash}, leaves permuted with seed {seed}.",
        "nodes": [node_content(node) for node in nodes],
        "levels": [*([moved.get(i, i) for i in level.ids] for level in hierarchy.levels[:-1]), ids],
    }
    content["hash"] = content_hash(content)
    return hierarchy_from_content(content, where=f"hierarchy '{hierarchy.dataset}/{content['tree']}'", classes=ids)


def permuted(ids: Sequence[str], seed: int) -> list[str]:
    """Return the ids ordered by BLAKE2b of (seed, id).

    >>> sorted(permuted(["a", "b", "c"], 0))
    ['a', 'b', 'c']
    """
    return sorted(ids, key=lambda i: (hashlib.blake2b(f"{seed}:{i}".encode(), digest_size=16).digest(), i))


def _words(node: Node) -> tuple[str, str, str | None]:
    return node.name, node.noun, node.wordnet
