"""Builds a class tree from an indented outline, the form in which trees are written and reviewed.

::

    # dataset: digits
    # tree: strokes
    # title: Strokes and loops
    # description: By the shape of the written digit.
    # default: yes
    # source: written for hierbench
    # licence: Apache-2.0
    digit | a digit |
      round digit | a round digit |
        @0
        @8
      ...

One node a line, two spaces of indentation an edge: ``name | noun | WordNet id or nothing`` for an inner node,
``@class`` for a leaf, whose name, noun and WordNet id come from the class table. Depth d is made of the nodes at
indentation d, a shallower leaf standing for itself; ``# levels: 1,2,4`` picks the indentations that become levels. The
leaves are always the last level. ``##`` begins a comment.
"""

from __future__ import annotations

import difflib
import os
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hierbench.hierarchy.class_table import LeafClass
from hierbench.hierarchy.content import FORMAT, MAX_FILE_BYTES, Content, content_hash, node_content
from hierbench.hierarchy.errors import HierarchyError, shown
from hierbench.hierarchy.load import hierarchy_from_content
from hierbench.hierarchy.strict_json import decode_text, read_bytes
from hierbench.hierarchy.tree import Hierarchy, Node
from hierbench.hierarchy.write import write_hierarchy

_NEEDED = ("dataset", "tree", "title", "description", "default", "source", "licence")
_OPTIONAL = ("levels", "levelling")
_HEADER = re.compile(r"#\s*([A-Za-z_-]+)\s*:\s*(.*)")


@dataclass(frozen=True)
class _Line:
    """One node line: where it stands, how far in, and what it says."""

    number: int
    indent: int
    text: str


@dataclass(frozen=True)
class _Drawn:
    """The nodes of an outline, in its order, with the indentation and line of each."""

    nodes: tuple[Node, ...]
    indents: tuple[int, ...]
    leaf: tuple[bool, ...]
    line_of: dict[str, int]


def build_outline(text: str, classes: Sequence[LeafClass], *, where: str = "outline") -> Hierarchy:
    """Build the tree that an outline describes over the given classes (label order).

    Errors raise ``HierarchyError`` naming ``where`` and, wherever one line is at fault, its number.
    """
    header, lines = _split(text, where=where)
    drawn = _draw(lines, classes, where=where)
    deepest = max(drawn.indents)
    picked = _picked_levels(header.get("levels"), deepest, where=where)
    content: Content = {
        "format": FORMAT,
        **{name: header[name] for name in ("dataset", "tree", "title", "description")},
        "default": _yes(header["default"], where=where),
        **{name: header[name] for name in ("source", "licence")},
        "levelling": header.get("levelling", _levelling(picked)),
        "classes": [row.id for row in classes],
        "nodes": [node_content(node) for node in drawn.nodes],
        "levels": [*(_cut(drawn, indent) for indent in picked), [row.id for row in classes]],
    }
    content["hash"] = content_hash(content)
    try:
        return hierarchy_from_content(content, where=where)
    except HierarchyError as error:
        if error.node in drawn.line_of:
            raise HierarchyError(f"{where}:{drawn.line_of[error.node]}", error.problem, node=error.node) from None
        raise


def build_outline_file(path: str | os.PathLike[str], classes: Sequence[LeafClass]) -> Hierarchy:
    """Build the tree of an outline file; errors as in ``build_outline``, naming the file and line."""
    file = Path(path)
    text = decode_text(read_bytes(file, max_bytes=MAX_FILE_BYTES), where=str(file))
    return build_outline(text, classes, where=str(file))


def build_all(folder: Path, classes_of: Callable[[str], Sequence[LeafClass]]) -> list[Path]:
    """Build ``<dataset>/<tree>.json`` beside every ``<dataset>/<tree>.outline`` of a folder; return the files written.

    ``classes_of`` gives a data set's classes by name. An outline whose folder or file is not named as its header says
    raises ``HierarchyError``; every outline is built before the first file is written.
    """
    built: list[tuple[Hierarchy, Path]] = []
    for outline in sorted(folder.glob("*/*.outline")):
        hierarchy = build_outline_file(outline, classes_of(outline.parent.name))
        for field, said, place in (
            ("dataset", hierarchy.dataset, outline.parent.name),
            ("tree", hierarchy.tree, outline.stem),
        ):
            if said != place:
                raise HierarchyError(
                    str(outline), f"header {field!r} is {shown(said)}, the file's place says {shown(place)}"
                )
        built.append((hierarchy, outline.with_suffix(".json")))
    return [write_hierarchy(hierarchy, target) for hierarchy, target in built]


def node_id(name: str) -> str:
    """Return the id an inner node's name gives: lower case, words joined by ``_``.

    >>> node_id("Sea-going mammal")
    'sea_going_mammal'
    """
    ascii_only = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode("ascii")
    return re.sub(r"[^a-z0-9]+", "_", ascii_only.lower()).strip("_")


def _split(text: str, *, where: str) -> tuple[dict[str, str], list[_Line]]:
    """Split an outline into its header fields and its node lines."""
    header: dict[str, str] = {}
    lines: list[_Line] = []
    for number, line in enumerate(text.splitlines(), start=1):
        here = f"{where}:{number}"
        bare = line.strip(" ")
        if not bare or bare.startswith("##"):
            continue
        if bare.startswith("#"):
            if lines:
                raise HierarchyError(here, "a header line after the first node: headers come first")
            _add_header(header, bare, here=here)
            continue
        indent = len(line) - len(line.lstrip(" "))
        if "\t" in line:
            raise HierarchyError(here, "holds a tab: indent by two spaces")
        if indent % 2:
            raise HierarchyError(here, f"is indented by {indent} spaces: two spaces are one edge")
        lines.append(_Line(number, indent // 2, bare))
    for name in _NEEDED:
        if name not in header:
            raise HierarchyError(where, f"the header line '# {name}: ...' is missing")
    if not lines:
        raise HierarchyError(where, "holds no nodes")
    return header, lines


def _add_header(header: dict[str, str], line: str, *, here: str) -> None:
    found = _HEADER.fullmatch(line)
    if found is None:
        raise HierarchyError(here, "a header line reads '# name: value'; a comment begins with '##'")
    name, value = found.group(1), found.group(2).strip()
    if name not in _NEEDED + _OPTIONAL:
        near = difflib.get_close_matches(name, _NEEDED + _OPTIONAL, n=1)
        raise HierarchyError(
            here,
            f"unknown header {shown(name)}: "
            + (f"did you mean {near[0]!r}?" if near else "a comment begins with '##'"),
        )
    if name in header:
        raise HierarchyError(here, f"header {name!r} occurs twice")
    if not value:
        raise HierarchyError(here, f"header {name!r} is empty")
    header[name] = value


def _draw(lines: Sequence[_Line], classes: Sequence[LeafClass], *, where: str) -> _Drawn:
    """Turn node lines into nodes, each under the last line that is one step less indented."""
    table = {row.id: row for row in classes}
    if lines[0].indent != 0:
        raise HierarchyError(f"{where}:{lines[0].number}", "the first node is the root: it is not indented")
    trail: list[str] = []
    nodes: list[Node] = []
    leaf: list[bool] = []
    line_of: dict[str, int] = {}
    for line in lines:
        here = f"{where}:{line.number}"
        if line.indent > len(trail):
            raise HierarchyError(here, f"is indented {line.indent - len(trail) + 1} steps more than the line above")
        if line.indent == 0 and nodes:
            raise HierarchyError(here, "is a second root: indent it")
        parent = trail[line.indent - 1] if line.indent else None
        if parent in table:
            raise HierarchyError(here, f"stands under the leaf @{parent}: leaves have no children")
        is_leaf = line.text.startswith("@")
        node = (
            _leaf(line.text, parent, table, here=here)
            if is_leaf
            else _inner(line.text, parent, table, line_of, here=here)
        )
        if node.id in line_of:
            raise HierarchyError(here, f"node {shown(node.id)} is already on line {line_of[node.id]}", node=node.id)
        line_of[node.id] = line.number
        del trail[line.indent :]
        trail.append(node.id)
        nodes.append(node)
        leaf.append(is_leaf)
    return _Drawn(tuple(nodes), tuple(line.indent for line in lines), tuple(leaf), line_of)


def _leaf(text: str, parent: str | None, table: dict[str, LeafClass], *, here: str) -> Node:
    class_id = text[1:].strip()
    row = table.get(class_id)
    if row is None:
        near = difflib.get_close_matches(class_id, table, n=1)
        raise HierarchyError(
            here,
            f"class {shown(class_id)} is not in the class table" + (f": did you mean {near[0]!r}?" if near else ""),
        )
    if parent is None:
        raise HierarchyError(here, "the root is a leaf: begin with 'name | noun |'")
    return Node(row.id, parent, row.name, row.noun, row.wordnet)


def _inner(text: str, parent: str | None, table: dict[str, LeafClass], taken: dict[str, int], *, here: str) -> Node:
    parts = [part.strip() for part in text.split("|")]
    if len(parts) not in (2, 3):
        raise HierarchyError(
            here, f"has {len(parts)} fields: an inner node reads 'name | noun | WordNet id or nothing'"
        )
    for field, value in zip(("name", "noun"), parts, strict=False):
        if not value:
            raise HierarchyError(here, f"field {field!r} is empty")
    slug = node_id(parts[0])
    if not slug:
        raise HierarchyError(here, f"name {shown(parts[0])} gives no id: it needs a Latin letter or a digit")
    if slug in table or slug in taken:
        # A group may be called as one of its classes is ("fish"), or as a group elsewhere in the tree.
        slug = f"{parent}.{slug}" if parent is not None else f"all_{slug}"
    wordnet = parts[2] if len(parts) == 3 and parts[2] else None
    return Node(slug, parent, parts[0], parts[1], wordnet)


def _yes(value: str, *, where: str) -> bool:
    if value not in ("yes", "no"):
        raise HierarchyError(where, f"header 'default' is {shown(value)}: write yes or no")
    return value == "yes"


def _picked_levels(value: str | None, deepest: int, *, where: str) -> list[int]:
    """Return the indentations that become levels above the leaves."""
    if value is None:
        return list(range(1, deepest))
    parts = [part.strip() for part in value.split(",")]
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise HierarchyError(where, f"header 'levels' is {shown(value)}: write indentations as in '1,2,4'")
    picked = [int(part) for part in parts]
    if picked != sorted(set(picked)) or picked[0] < 1 or picked[-1] > deepest:
        raise HierarchyError(where, f"header 'levels' is {shown(value)}: ascending indentations from 1 to {deepest}")
    # At the deepest indentation there are only leaves, which are the last level in any case.
    return [indent for indent in picked if indent < deepest]


def _levelling(picked: Sequence[int]) -> str:
    if not picked:
        return "The leaves are the only level."
    edges = ", ".join(str(indent) for indent in picked[:-1])
    edges = f"{edges} and {picked[-1]}" if edges else str(picked[-1])
    plural = "edge" if picked == [1] else "edges"
    return f"The nodes {edges} {plural} below the root, a shallower leaf standing for itself; then the leaves."


def _cut(drawn: _Drawn, indent: int) -> list[str]:
    """Return the ids of the nodes at one indentation and of the leaves above it, in the outline's order."""
    return [
        node.id
        for node, depth, is_leaf in zip(drawn.nodes, drawn.indents, drawn.leaf, strict=True)
        if depth == indent or (is_leaf and depth < indent)
    ]
