"""Content hashes of files, so that a record names the very images it was made on."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

_Feed = Callable[["hashlib._Hash"], object]

REMEMBER_BYTES = 256 * 1024 * 1024
"""Above this total a hash is kept in the cache under the files' paths, sizes and times of change."""


def files_digest(paths: Sequence[Path], cache: Path | None = None) -> str:
    """Return the SHA-256 of the files' bytes, in order, as 64 hexadecimal digits.

    Large files are hashed once: the result is kept under ``cache``, and again when a size or a time changes.
    """

    def feed(digest: hashlib._Hash) -> None:
        for path in paths:
            _feed(digest, path)

    return _remembered("files", paths, cache, feed)


def tree_digest(paths: Sequence[Path], root: Path, cache: Path | None = None) -> str:
    """Return the SHA-256 over each file's path below ``root``, its size and its bytes, in order."""

    def feed(digest: hashlib._Hash) -> None:
        for path in paths:
            digest.update(f"{path.relative_to(root).as_posix()}\t{path.stat().st_size}\n".encode())
            _feed(digest, path)

    return _remembered("tree", paths, cache, feed)


def _feed(digest: hashlib._Hash, path: Path) -> None:
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)


def _remembered(kind: str, paths: Sequence[Path], cache: Path | None, feed: _Feed) -> str:
    states = [(str(p.resolve()), p.stat().st_size, p.stat().st_mtime_ns) for p in paths]
    kept = None
    if cache is not None and sum(size for _, size, _ in states) > REMEMBER_BYTES:
        key = hashlib.sha256(json.dumps([kind, states]).encode()).hexdigest()[:32]
        kept = cache / "digests" / f"{key}.txt"
        try:
            known = kept.read_text(encoding="ascii").strip()
            if len(known) == 64 and set(known) <= set("0123456789abcdef"):
                return known
        except (OSError, ValueError):
            pass
    digest = hashlib.sha256()
    feed(digest)
    found = digest.hexdigest()
    if kept is not None:
        _keep(kept, found)
    return found


def _keep(target: Path, text: str) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=target.parent, suffix=".part", delete=False) as stream:
            stream.write(text + "\n")
        Path(stream.name).replace(target)
    except OSError:
        return  # a cache that cannot be written only costs time
