"""A data set's classes in label order, as a tab-separated table names them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from hierbench.hierarchy.content import MAX_FILE_BYTES
from hierbench.hierarchy.errors import HierarchyError, shown
from hierbench.hierarchy.strict_json import decode_text, read_bytes

COLUMNS = ("id", "name", "noun", "wordnet")


@dataclass(frozen=True, slots=True)
class LeafClass:
    """One class: its id in the data set, bare name, noun phrase with its article, and WordNet 3.0 id or None."""

    id: str
    name: str
    noun: str
    wordnet: str | None = None


def read_class_table(path: str | os.PathLike[str]) -> tuple[LeafClass, ...]:
    """Read ``id, name, noun, wordnet`` from a tab-separated UTF-8 file with that header, rows in label order.

    A wrong header, a row without four fields, an empty id, name or noun, or an id that occurs twice raises
    ``HierarchyError`` naming the line.
    """
    file = Path(path)
    lines = decode_text(read_bytes(file, max_bytes=MAX_FILE_BYTES), where=str(file)).splitlines()
    if not lines or tuple(lines[0].split("\t")) != COLUMNS:
        raise HierarchyError(f"{file}:1", f"the header should be {' '.join(COLUMNS)}, separated by tabs")
    rows: dict[str, LeafClass] = {}
    for number, line in enumerate(lines[1:], start=2):
        fields = line.split("\t")
        if len(fields) != len(COLUMNS):
            raise HierarchyError(f"{file}:{number}", f"has {len(fields)} fields, {len(COLUMNS)} are needed")
        for column, value in zip(COLUMNS[:3], fields, strict=False):
            if not value.strip():
                raise HierarchyError(f"{file}:{number}", f"field {column!r} is empty")
        if fields[0] in rows:
            raise HierarchyError(f"{file}:{number}", f"class {shown(fields[0])} occurs twice", node=fields[0])
        rows[fields[0]] = LeafClass(fields[0], fields[1], fields[2], fields[3] or None)
    return tuple(rows.values())
