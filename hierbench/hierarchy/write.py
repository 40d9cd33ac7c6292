"""Writes a class tree as canonical JSON, one node a line, so that a change reads as a change."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path

from hierbench.hierarchy.content import hierarchy_content
from hierbench.hierarchy.tree import Hierarchy


def hierarchy_text(hierarchy: Hierarchy) -> str:
    """Return the file's text: fields in format order, one node, one class and one level a line."""
    lines: list[str] = []
    for name, value in hierarchy_content(hierarchy).items():
        if isinstance(value, list):
            entries = ",\n".join(f"    {_compact(entry)}" for entry in value)
            lines.append(f"  {_compact(name)}: [\n{entries}\n  ]")
        else:
            lines.append(f"  {_compact(name)}: {_compact(value)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def write_hierarchy(hierarchy: Hierarchy, path: str | os.PathLike[str]) -> Path:
    """Write the file whole or not at all, and return its path; the folder is made if missing."""
    target = Path(path)
    write_atomically(hierarchy_text(hierarchy), target)
    return target


def write_atomically(text: str, target: Path) -> None:
    """Write UTF-8 text beside its place, flush it to disk, then move it there in one step."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(name).unlink()
        raise


def _compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
