"""Files that are whole or absent: written under another name, flushed, renamed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hierbench.errors import HierbenchError, InputError

UNFINISHED = ".unfinished"


class DamagedFileWarning(UserWarning):
    """A file of an earlier run could not be used, and what it held is made again."""


def digest_bytes(data: bytes) -> str:
    """Return ``sha256:<hex>`` of some bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def digest_file(path: Path) -> str:
    """Return ``sha256:<hex>`` of a file."""
    with path.open("rb") as handle:
        return f"sha256:{hashlib.file_digest(handle, 'sha256').hexdigest()}"


def canonical_json(value: Any) -> bytes:
    """Return the one spelling of a JSON value: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest_json(value: Any) -> str:
    """Return ``sha256:<hex>`` of a JSON value's canonical spelling.

    >>> digest_json({"b": 1, "a": 2}) == digest_json({"a": 2, "b": 1})
    True
    """
    return digest_bytes(canonical_json(value))


def make_folder(path: Path) -> Path:
    """Make a folder with its parents; one that cannot be made raises ``InputError`` naming it."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out: cannot write in {path} ({error.strerror or error}); name another folder") from None
    return path


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that becomes ``path`` on success and vanishes on any failure.

    The content reaches the disk before the name does, so that a reader, a crash or a kill at any moment sees the old
    file, the new file or none. ``OSError`` (disk full) becomes a ``HierbenchError`` naming the file.
    """
    # one name per target: its only writer holds the run's lock, and what a kill leaves behind is overwritten
    temporary = path.with_name(f".{path.name}{UNFINISHED}")
    try:
        try:
            yield temporary
            _flush(temporary)
            temporary.replace(path)
            _flush(path.parent)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
    except OSError as error:
        raise HierbenchError(f"cannot write {path}: {error.strerror or error}") from error


def atomic_write(path: Path, data: bytes) -> None:
    """Write a whole file or nothing; see ``atomic_path``."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def _flush(path: Path) -> None:
    if os.name == "nt" and path.is_dir():  # folders cannot be opened there
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
