"""Reads JSON from a stranger: bounded size and nesting, UTF-8 only, no duplicate keys, no NaN."""

from __future__ import annotations

import codecs
import json
import re
import stat
from pathlib import Path
from typing import NoReturn

import numpy as np

from hierbench.hierarchy.errors import HierarchyError, shown

MAX_NESTING = 16
MAX_FIELDS = 256
# Always matches from an opening quote, to its closing quote or the end: one pass, whatever the bytes are.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)


def read_bytes(path: Path, *, max_bytes: int) -> bytes:
    """Return a regular file's bytes; a missing, unreadable, special or oversized file raises ``HierarchyError``."""
    where = str(path)
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise HierarchyError(where, "is a folder; a file is needed")
        if not stat.S_ISREG(status.st_mode):
            raise HierarchyError(where, "is not a regular file")
        if status.st_size <= max_bytes:
            with path.open("rb") as file:
                data = file.read(max_bytes + 1)
            if len(data) <= max_bytes:
                return data
    except FileNotFoundError:
        raise HierarchyError(where, "no such file") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the path
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise HierarchyError(where, f"cannot be read: {reason}") from None
    raise HierarchyError(where, f"is larger than {max_bytes // 2**20} MiB, the limit")


def decode_text(data: bytes, *, where: str) -> str:
    """Return UTF-8 text; a byte order mark or another encoding raises ``HierarchyError``."""
    if data.startswith(codecs.BOM_UTF8):
        raise HierarchyError(where, "begins with a byte order mark: save it as UTF-8 without one")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise HierarchyError(where, f"is not UTF-8: byte {error.start} is wrong; save it as UTF-8") from None


def parse_json(data: bytes, *, where: str) -> object:
    """Return the value of strict JSON; anything else raises ``HierarchyError`` with line and column."""
    text = decode_text(data, where=where)
    if not text.strip():
        raise HierarchyError(where, "is empty")
    if _nesting(data) > MAX_NESTING:
        raise HierarchyError(where, f"is nested more than {MAX_NESTING} deep, which no class tree is")

    def unique_fields(pairs: list[tuple[str, object]]) -> dict[str, object]:
        if len(pairs) > MAX_FIELDS:
            raise HierarchyError(where, f"holds an object of {len(pairs)} fields, at most {MAX_FIELDS} are allowed")
        fields = dict(pairs)
        if len(fields) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            owner = f"node {shown(fields['id'])}: " if isinstance(fields.get("id"), str) else ""
            raise HierarchyError(where, f"{owner}field {shown(twice)} occurs twice")
        return fields

    def refuse_constant(name: str) -> NoReturn:
        raise HierarchyError(where, f"holds {name}, which is not JSON")

    try:
        value: object = json.loads(text, object_pairs_hook=unique_fields, parse_constant=refuse_constant)
    except json.JSONDecodeError as error:
        raise HierarchyError(
            where, f"is not complete JSON: {error.msg} at line {error.lineno} column {error.colno}"
        ) from None
    except ValueError:  # Python's limit on the digits of an integer
        raise HierarchyError(where, "holds a number that is too long") from None
    return value


def _nesting(data: bytes) -> int:
    """Return how deep brackets nest outside strings, before a recursive parser sees them."""
    bare = np.frombuffer(_STRING.sub(b"", data), dtype=np.uint8)
    # [ and { differ in one bit, and so do ] and }.
    folded = bare | 0x20
    brackets = folded[(folded == ord("{")) | (folded == ord("}"))]
    steps = np.where(brackets == ord("{"), 1, -1)
    return int(np.cumsum(steps).max(initial=0))
