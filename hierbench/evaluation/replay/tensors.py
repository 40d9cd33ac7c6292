"""Safetensors files written piece by piece and read piece by piece, with a checksum over the whole.

The format is the library's: its reader checks the header. Its writer wants everything in memory, and images of a
large run do not fit there.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from hierbench.errors import HierbenchError, InputError
from hierbench.evaluation.storage import atomic_path

MAX_BYTES = 8 * 2**30
"""Files above this are neither written nor read."""
MAX_HEADER = 2**20
CHECKSUM = "checksum"
_BLANK = "0" * 64
_BLOCK = 2**20
_NAMES = {"int8": "I8", "int16": "I16", "int32": "I32", "int64": "I64", "uint8": "U8", "bool": "BOOL"}

Array = NDArray[Any]


@dataclass(frozen=True)
class Column:
    """One tensor to write: its name, type and shape, and its rows, block by block."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    blocks: Iterable[Array]

    @classmethod
    def of(cls, name: str, array: Array) -> Column:
        """Return an array that is in memory as a column."""
        return cls(name, array.dtype, array.shape, (array,))

    @property
    def nbytes(self) -> int:
        """Bytes it takes."""
        return math.prod(self.shape) * self.dtype.itemsize


def write_tensors(path: Path, columns: Sequence[Column], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file, whole or not at all; the checksum covers header and data.

    A column whose blocks do not add up to its shape is a ``HierbenchError``.
    """
    columns = sorted(columns, key=lambda column: -column.dtype.itemsize)  # so that each begins at a multiple of it
    header: dict[str, Any] = {"__metadata__": {**metadata, CHECKSUM: _BLANK}}
    stop = 0
    for column in columns:
        start, stop = stop, stop + column.nbytes
        kind = _NAMES[column.dtype.name]
        header[column.name] = {"dtype": kind, "shape": list(column.shape), "data_offsets": [start, stop]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEADER or stop > MAX_BYTES:
        raise HierbenchError(f"{path}: {len(text)} bytes of header and {stop} of data are more than a file may hold")
    digest = hashlib.sha256(text)
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for column in columns:
            _write_column(stream, column, digest)
        stream.seek(8)
        stream.write(text.replace(_checksum(_BLANK), _checksum(digest.hexdigest()), 1))


def _write_column(stream: BinaryIO, column: Column, digest: Any) -> None:
    rows = 0
    for block in column.blocks:
        if block.dtype != column.dtype or block.shape[1:] != column.shape[1:]:
            raise HierbenchError(f"{column.name}: a block is {block.dtype} {block.shape}, not as its column")
        data = np.ascontiguousarray(block, dtype=block.dtype.newbyteorder("<")).tobytes()
        stream.write(data)
        digest.update(data)
        rows += len(block)
    if rows != column.shape[0]:
        raise HierbenchError(f"{column.name}: {rows} rows came where {column.shape[0]} were announced")


def _checksum(value: str) -> bytes:
    return f'"{CHECKSUM}":"{value}"'.encode()


@dataclass(frozen=True)
class TensorFile:
    """A safetensors file that is whole: its metadata, and its tensors by rows."""

    path: Path
    metadata: Mapping[str, str]
    shapes: Mapping[str, tuple[str, tuple[int, ...]]]
    """(type, shape) by name."""

    def rows(self, name: str, start: int = 0, stop: int | None = None) -> Array:
        """Return the rows ``start`` to ``stop`` of a tensor."""
        from safetensors import safe_open

        with safe_open(str(self.path), framework="numpy") as opened:
            found: Array = opened.get_slice(name)[start:stop]
        return found


def open_tensors(path: Path, *, what: str) -> TensorFile:
    """Open a file that ``write_tensors`` wrote; anything else is an ``InputError`` of one line, ``what`` first.

    Nothing of a file is loaded before its size and header have been looked at, and nothing in it is run.
    """
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise InputError(f"{what} {path}: not a file")
        if size < 8:
            raise InputError(f"{what} {path}: {size} bytes are no safetensors file; give what --store-images wrote")
        if size > MAX_BYTES + MAX_HEADER:
            raise InputError(f"{what} {path}: {size} bytes; such a file has at most {MAX_BYTES}")
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if not 2 <= length <= min(MAX_HEADER, size - 8):
                raise InputError(f"{what} {path}: not a safetensors file, or cut short")
            text = stream.read(length)
            metadata, shapes = _read_header(path, what)
            checksum = metadata.get(CHECKSUM, "")
            blank = text.replace(_checksum(checksum), _checksum(_BLANK), 1)
            digest = hashlib.sha256(blank)
            while block := stream.read(_BLOCK):
                digest.update(block)
    except OSError as error:
        raise InputError(f"{what} {path}: {error.strerror or error}") from None
    if digest.hexdigest() != checksum:
        raise InputError(f"{what} {path}: its checksum is wrong: the file was damaged or changed")
    return TensorFile(path, metadata, shapes)


def _read_header(path: Path, what: str) -> tuple[dict[str, str], dict[str, tuple[str, tuple[int, ...]]]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="numpy") as opened:
            slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118 - it is no mapping
            shapes = {name: (str(part.get_dtype()), tuple(part.get_shape())) for name, part in slices.items()}
            return dict(opened.metadata() or {}), shapes
    except (SafetensorError, ValueError) as error:
        first = (str(error).splitlines() or ["no reason given"])[0][:120]
        raise InputError(f"{what} {path}: not a whole safetensors file ({first})") from None


def type_name(dtype: np.dtype[Any]) -> str:
    """Return how a safetensors header names a type."""
    return _NAMES[dtype.name]
