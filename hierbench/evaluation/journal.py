"""The journal of a run: one file for each finished unit, so that a killed run goes on where it stopped.

A unit is one chunk of samples in one phase (the clean pass, or the attack at one depth). Its file is named after a key
made of everything that decides its content, so a changed setting never finds another setting's unit; a file that is
torn or altered fails its checksum and is made again.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hierbench.evaluation.storage import (
    DamagedFileWarning,
    atomic_write,
    canonical_json,
    digest_bytes,
    digest_json,
    make_folder,
)
from hierbench.locking import sole_writer

Arrays = dict[str, NDArray[Any]]

FORMAT = "hierbench-journal-1"
SUFFIX = ".safetensors"
LOCK = "lock"
SESSIONS = "sessions"


@dataclass(frozen=True, slots=True)
class UnitKey:
    """Which unit: a phase (``clean``, ``attack``), its depth (0 for clean), and the chunk with its samples."""

    phase: str
    depth: int
    chunk: int
    samples_hash: str
    """Hash over the chunk's sample ids and whatever else differs per chunk."""

    def describe(self) -> str:
        """Say which unit this is, for messages."""
        where = "clean pass" if self.phase == "clean" else f"{self.phase} at depth {self.depth}"
        return f"{where}, chunk {self.chunk}"


@dataclass
class Journal:
    """Finished units of one run in ``folder``, valid for ``fingerprint`` only."""

    folder: Path
    fingerprint: str
    resumed: int = field(default=0, init=False)
    outdated: bool = field(default=False, init=False)
    """Units of another fingerprint were found and dropped: other code, packages, device or threads."""

    def path(self, key: UnitKey) -> Path:
        """Return the file of a unit."""
        name = digest_json([FORMAT, self.fingerprint, key.phase, key.depth, key.chunk, key.samples_hash])
        return self.folder / f"{key.phase}-{key.depth:02d}-{key.chunk:05d}-{name[-16:]}{SUFFIX}"

    def read(self, key: UnitKey) -> Arrays | None:
        """Return a finished unit, or None if there is none that can be trusted (a damaged one warns)."""
        path = self.path(key)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            self._damaged(path, key, str(error.strerror or error))
            return None
        try:
            arrays = _decode(data, self.fingerprint)
        except ValueError as error:
            self._damaged(path, key, str(error))
            return None
        self.resumed += 1
        return arrays

    def has(self, key: UnitKey) -> bool:
        """Return whether a unit's file is there; whether it is whole shows when it is read."""
        return self.path(key).exists()

    def write(self, key: UnitKey, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Keep a finished unit: whole on disk when this returns."""
        make_folder(self.folder)
        atomic_write(self.path(key), _encode(arrays, self.fingerprint))

    def begin_session(self, *, fresh: bool) -> int:
        """Count one more session on this run and return how many there were.

        ``fresh`` forgets all finished units, and so does a fingerprint other than the last session's.
        """
        last, before = self._last_session()
        self.outdated = not fresh and before > 0 and last != self.fingerprint
        if fresh or self.outdated:
            before = 0
            for unit in self.folder.glob(f"*{SUFFIX}"):
                unit.unlink(missing_ok=True)
        atomic_write(self.folder / SESSIONS, f"{self.fingerprint} {before + 1}".encode())
        return before + 1

    def _last_session(self) -> tuple[str, int]:
        try:
            fingerprint, count = (self.folder / SESSIONS).read_text(encoding="ascii").split()
            return fingerprint, int(count)
        except (OSError, ValueError):  # none yet, or torn: units have their own fingerprints
            return self.fingerprint, 0

    def discard(self) -> None:
        """Remove the journal; its run is finished."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _damaged(self, path: Path, key: UnitKey, reason: str) -> None:
        message = f"journal unit {path.name} ({key.describe()}) is damaged and is made again: {reason}"
        warnings.warn(message, DamagedFileWarning, stacklevel=3)


def _content_digest(arrays: Mapping[str, NDArray[Any]], fingerprint: str) -> str:
    parts = [
        canonical_json([fingerprint, name, str(array.dtype), list(array.shape)]) + np.ascontiguousarray(array).tobytes()
        for name, array in sorted(arrays.items())
    ]
    return digest_bytes(b"".join(len(part).to_bytes(8, "little") + part for part in parts))


def _encode(arrays: Mapping[str, NDArray[Any]], fingerprint: str) -> bytes:
    from safetensors.numpy import save

    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    metadata = {"format": FORMAT, "fingerprint": fingerprint, "content": _content_digest(contiguous, fingerprint)}
    return bytes(save(contiguous, metadata=metadata))


def _decode(data: bytes, fingerprint: str) -> Arrays:
    """Return the arrays of a unit file; anything wrong with it raises ``ValueError`` saying what."""
    import json

    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays: Arrays = load(data)
        length = int.from_bytes(data[:8], "little")
        metadata = json.loads(data[8 : 8 + length]).get("__metadata__", {})
    except (SafetensorError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"not a whole safetensors file ({error})") from None
    if metadata.get("format") != FORMAT:
        raise ValueError("not a journal unit")
    if metadata.get("fingerprint") != fingerprint:
        raise ValueError("it belongs to other settings")
    if metadata.get("content") != _content_digest(arrays, fingerprint):
        raise ValueError("its checksum is wrong")
    return arrays


def locked(folder: Path) -> AbstractContextManager[None]:
    """Hold the lock of a journal folder (made if missing); a second holder raises ``InputError`` at once."""
    return sole_writer(folder / LOCK, folder)
