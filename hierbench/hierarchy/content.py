"""The content of a class-tree file: its constants, its canonical form and its hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from hierbench.hierarchy.tree import Hierarchy, Node

FORMAT = 1
MAX_FILE_BYTES = 32 * 2**20
MAX_NODES = 200_000
MAX_LEVELS = 64

Content = dict[str, object]


def canonical_json(content: Mapping[str, object]) -> bytes:
    """Return the one form that is hashed: UTF-8, keys sorted, no spaces, non-ASCII as it is."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8")


def content_hash(content: Mapping[str, object]) -> str:
    """Return ``sha256:<hex>`` over the canonical JSON of everything but the field ``hash``."""
    body = {key: value for key, value in content.items() if key != "hash"}
    return "sha256:" + hashlib.sha256(canonical_json(body)).hexdigest()


def node_content(node: Node) -> Content:
    """Return one node as its file has it; a node without a WordNet id has no such field."""
    content: Content = {"id": node.id, "parent": node.parent, "name": node.name, "noun": node.noun}
    if node.wordnet is not None:
        content["wordnet"] = node.wordnet
    return content


def hierarchy_content(hierarchy: Hierarchy) -> Content:
    """Return what a file of this hierarchy holds, its hash included; without choices there is no such field."""
    content: Content = {
        "format": FORMAT,
        "dataset": hierarchy.dataset,
        "tree": hierarchy.tree,
        "title": hierarchy.title,
        "description": hierarchy.description,
        "default": hierarchy.default,
        "source": hierarchy.source,
        "licence": hierarchy.licence,
        "levelling": hierarchy.levelling,
        **({"choices": list(hierarchy.choices)} if hierarchy.choices else {}),
        "classes": [leaf.id for leaf in hierarchy.leaves],
        "nodes": [node_content(node) for node in hierarchy.nodes],
        "levels": [list(level.ids) for level in hierarchy.levels],
    }
    content["hash"] = content_hash(content)
    return content
