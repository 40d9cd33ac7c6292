"""Encoded images by row number, from wherever they lie, with little in memory."""

from __future__ import annotations

import abc
import io
import shutil
import tempfile
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from hierbench.datasets.decode import decode_image
from hierbench.errors import InputError

MEMORY_BYTES = 32 * 2**20
"""Encoded images up to this total are kept in memory, more of them in a temporary file."""

MAX_ENCODED_BYTES = 256 * 1024 * 1024
"""A single encoded image larger than this is refused before it is read."""


class Blobs(abc.ABC):
    """The encoded images of one split. ``read`` and ``decode`` may be called from several threads at once."""

    def prepare(self, rows: npt.NDArray[np.int64]) -> None:
        """Be told which rows will be asked for, before the first of them is."""
        del rows

    @abc.abstractmethod
    def read(self, row: int) -> bytes:
        """Return the encoded image of a row."""

    def decode(self, row: int, grid: tuple[int, int, int], *, where: str) -> npt.NDArray[np.uint8]:
        """Return a row's pixels, uint8 [channels, height, width]; ``InputError`` names ``where``."""
        return decode_image(self.read(row), grid, where=where)


class FileBlobs(Blobs):
    """One file an image."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = tuple(paths)

    def read(self, row: int) -> bytes:
        """Return the file's bytes."""
        path = self.paths[row]
        try:
            if path.stat().st_size > MAX_ENCODED_BYTES:
                raise InputError(f"{path}: {path.stat().st_size} bytes; no image is that large")
            return path.read_bytes()
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None


class RangeBlobs(Blobs):
    """Images at known places of a few files, such as tars."""

    def __init__(self, files: Sequence[Path], places: npt.NDArray[np.int64]) -> None:
        """``places`` is int64 [n, 3]: index into ``files``, offset, length."""
        self.files = tuple(files)
        self.places = places
        self._open: dict[int, IO[bytes]] = {}
        self._lock = threading.Lock()

    def read(self, row: int) -> bytes:
        """Return the bytes of a row's range."""
        index, offset, length = (int(v) for v in self.places[row])
        path = self.files[index]
        if length > MAX_ENCODED_BYTES:
            raise InputError(f"{path}: a member of {length} bytes; no image is that large")
        try:
            with self._lock:  # one position a file
                if index not in self._open:
                    self._open[index] = path.open("rb")
                stream = self._open[index]
                stream.seek(offset)
                data = stream.read(length)
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
        if len(data) != length:
            raise InputError(f"{path}: ends at byte {offset + len(data)}, inside a member: the file is cut short")
        return data


class Spool:
    """Encoded images gathered once: in memory while they are few, else in a temporary file that nobody else sees."""

    def __init__(self, folder: Path | None, memory_bytes: int = MEMORY_BYTES) -> None:
        self.places: dict[int, tuple[int, int]] = {}
        self._folder = folder
        self._memory_bytes = memory_bytes
        self._stream: IO[bytes] = io.BytesIO()
        self._lock = threading.Lock()
        self._end = 0

    @property
    def on_disk(self) -> bool:
        """Whether the images went to a file."""
        return not isinstance(self._stream, io.BytesIO)

    def add(self, items: Iterable[tuple[int, bytes]]) -> None:
        """Keep the bytes of some rows."""
        with self._lock:
            self._stream.seek(self._end)
            for row, data in items:
                self._stream.write(data)
                self.places[row] = (self._end, len(data))
                self._end += len(data)
                if self._end > self._memory_bytes and not self.on_disk:
                    self._to_disk()

    def _to_disk(self) -> None:
        stream = tempfile.TemporaryFile(dir=_usable(self._folder))  # noqa: SIM115 (open as long as this is used)
        self._stream.seek(0)
        shutil.copyfileobj(self._stream, stream, 1 << 20)
        self._stream = stream

    def read(self, row: int) -> bytes:
        """Return the bytes of a row that was added."""
        offset, length = self.places[row]
        with self._lock:
            self._stream.seek(offset)
            return self._stream.read(length)


def _usable(folder: Path | None) -> str | None:
    """Return the folder if it can be made; None is the system's own place for temporary files."""
    if folder is None:
        return None
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return str(folder)
