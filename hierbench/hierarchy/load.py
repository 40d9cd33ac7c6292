"""Reads one class-tree file into a ``Hierarchy``, or says in one line why not."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from hierbench.hierarchy.content import MAX_FILE_BYTES, content_hash
from hierbench.hierarchy.errors import HierarchyError
from hierbench.hierarchy.schema import checked_fields
from hierbench.hierarchy.strict_json import parse_json, read_bytes
from hierbench.hierarchy.tree import Hierarchy, Node
from hierbench.hierarchy.validate import (
    check_class_order,
    check_classes,
    check_line,
    check_names,
    check_tree,
    checked_levels,
    checked_shape,
)


def load_hierarchy_file(path: str | os.PathLike[str], *, classes: Sequence[str] | None = None) -> Hierarchy:
    """Read and check a class-tree file (format 1).

    ``classes`` are the data set's class ids in label order; given, the file must have exactly these. A file that is
    malformed in any way raises ``HierarchyError``: one line naming the file, and the node or field.
    """
    file = Path(path)
    content = parse_json(read_bytes(file, max_bytes=MAX_FILE_BYTES), where=str(file))
    return hierarchy_from_content(content, where=str(file), classes=classes)


def hierarchy_from_content(content: object, *, where: str, classes: Sequence[str] | None = None) -> Hierarchy:
    """Check the parsed content of a class-tree file, its hash included, and return its ``Hierarchy``.

    ``where`` names the content in errors, as in ``load_hierarchy_file``.
    """
    fields = checked_fields(content, where=where)
    for name in ("title", "description", "source", "licence", "levelling"):
        check_line(getattr(fields, name), field=name, where=where)
    for line in fields.choices:
        check_line(line, field="choices", where=where)
    nodes = [Node(node.id, node.parent, node.name, node.noun, node.wordnet or None) for node in fields.nodes]
    check_names(nodes, where=where)
    positions, parent = check_tree(nodes, where=where)
    check_classes(fields.classes, nodes, positions, parent, where=where)
    if classes is not None:
        check_class_order(fields.classes, classes, where=where)
    shape = checked_shape(parent, fields.classes, positions)
    levels = checked_levels(fields.levels, fields.classes, nodes, positions, shape, where=where)
    # Last, so that a file edited by hand is first told what is wrong with it.
    _check_hash(content, fields.hash, where=where)
    return Hierarchy(
        dataset=fields.dataset,
        tree=fields.tree,
        title=fields.title,
        description=fields.description,
        default=fields.default,
        source=fields.source,
        licence=fields.licence,
        levelling=fields.levelling,
        content_hash=fields.hash,
        nodes=tuple(nodes),
        levels=levels,
        shape=shape,
        choices=tuple(fields.choices),
    )


def _check_hash(content: object, given: str, *, where: str) -> None:
    assert isinstance(content, Mapping)
    computed = content_hash(content)
    if computed != given:
        raise HierarchyError(
            where,
            f"field 'hash' is {given[:19]}... but the content's is {computed[:19]}...: the file was changed; "
            "'hierbench hierarchy build' writes it anew",
        )
