"""A stranger's weights file to tensors by name: safetensors, or torch's own format through its weights-only reader."""

from __future__ import annotations

import re
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch

from hierbench.errors import InputError

Container: TypeAlias = Literal["safetensors", "torch", "torch (before 1.6)"]

SIZE_LIMIT = 32 << 30
"""Bytes; ViT-L/14 in fp32 with its optimiser is under 6 GiB."""
PICKLE_LIMIT = 64 << 20
"""Bytes of the index in torch's archive, which holds names and shapes alone."""
ENTRY_LIMIT = 100_000
HEADER_LIMIT = 100 << 20
SAFE_TORCH = (2, 6)
"""Before it the weights-only reader could be talked into running code (CVE-2025-32434)."""
_OLD_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_WANTED = "it should be a file of torch.save or safetensors"


def read_container(path: Path) -> tuple[Container, dict[str, Any]]:
    """Return what a file holds by name, and which format it is in; nothing in it is ever run.

    Tensors of a large file stay on the disk until they are read. Raises ``InputError``, one line, for a file that is
    missing, empty, cut off, too large, a web page, a git-lfs pointer, an archive of something else, compressed, or that
    asks for anything beyond tensors, plain values and numpy's scalars. METHODS.md 7.
    """
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise InputError(f"{path}: not a file; {_WANTED}")
        with path.open("rb") as handle:
            head = handle.read(1024)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}; {_WANTED}") from None
    if size > SIZE_LIMIT:
        raise InputError(f"{path}: {size >> 30} GiB, more than any checkpoint here ({SIZE_LIMIT >> 30} GiB)")
    container = _sniff(path, head, size)
    if container == "safetensors":
        return container, _read_safetensors(path)
    if container == "torch":
        _check_archive(path, size)
    return container, _read_torch(path, mapped=container == "torch")


def _sniff(path: Path, head: bytes, size: int) -> Container:
    if size == 0:
        raise InputError(f"{path}: empty (0 bytes); {_WANTED}")
    if head.startswith(b"version https://git-lfs"):
        raise InputError(f"{path}: a git-lfs pointer, not the weights; run 'git lfs pull' where it came from")
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<body")):
        raise InputError(f"{path}: a web page, not weights: the link led to a page; download the file itself")
    if head.startswith(b"PK"):
        return "torch"
    if head.startswith(_OLD_MAGIC):
        return "torch (before 1.6)"
    if len(head) > 8 and head[8:9] == b"{" and struct.unpack("<Q", head[:8])[0] <= HEADER_LIMIT:
        return "safetensors"
    if head.startswith(b"\x80"):
        raise InputError(f"{path}: a plain pickle, which can run anything and is not opened; {_WANTED}")
    if head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"(\xb5/\xfd")) or head[257:262] == b"ustar":
        raise InputError(f"{path}: a compressed or tar archive; unpack it and give the checkpoint inside")
    raise InputError(f"{path}: starts with {head[:8]!r}, which no weights file does; {_WANTED}")


def _read_safetensors(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as stored:
            return {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError, AttributeError, KeyError, ValueError, RuntimeError) as error:
        raise InputError(
            f"{path}: not a readable safetensors file ({_first_line(error)}); a download that was cut off looks like "
            "this, so fetch it again"
        ) from None


def _check_archive(path: Path, size: int) -> None:
    """Refuse a zip that torch.save did not write: compressed, overlapping or doubled entries, programs, others."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, struct.error, ValueError, OSError, EOFError) as error:
        raise InputError(
            f"{path}: cut off or damaged ({_first_line(error)}; {size} bytes are there); fetch or save it again"
        ) from None
    names = [entry.filename for entry in entries]
    if len(entries) > ENTRY_LIMIT or len(set(names)) != len(names):
        raise InputError(f"{path}: {len(entries)} archive entries, too many or doubled; {_WANTED}")
    endings = {name.partition("/")[2] for name in names}
    if "constants.pkl" in endings or any(ending.startswith("code/") for ending in endings):
        raise InputError(
            f"{path}: a TorchScript program, which is not run here; save its tensors alone: "
            "torch.save(torch.jit.load(FILE).state_dict(), NEW)"
        )
    packed = next((e.filename for e in entries if e.compress_type != zipfile.ZIP_STORED or e.flag_bits & 1), None)
    if packed is not None:
        raise InputError(
            f"{path}: entry {packed!r} is compressed or encrypted, which torch.save never does (an archive bomb, or a "
            "zip around the checkpoint: unpack it)"
        )
    if sum(entry.file_size for entry in entries) > size:
        raise InputError(f"{path}: its entries claim more bytes than the file has (an archive bomb); {_WANTED}")
    index = [entry for entry in entries if entry.filename.partition("/")[2] == "data.pkl"]
    if len(index) != 1:
        raise InputError(f"{path}: a zip without the one data.pkl that torch.save writes; {_WANTED}")
    if index[0].file_size > PICKLE_LIMIT:
        raise InputError(
            f"{path}: its index has {index[0].file_size >> 20} MiB, beyond {PICKLE_LIMIT >> 20}; {_WANTED}"
        )


def _read_torch(path: Path, *, mapped: bool) -> dict[str, Any]:
    """Unpickle by torch's weights-only reader; ``mapped`` bounds every tensor by the file, whatever the index says."""
    _check_torch(path)
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(_ALLOWED):
            warnings.simplefilter("ignore")
            content = torch.load(str(path), map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # noqa: BLE001 (a stranger's bytes may make the reader raise anything)
        raise InputError(f"{path}: {_refusal(error)}") from None
    if not isinstance(content, dict) or not content or not all(isinstance(key, str) for key in content):
        kind = type(content).__name__
        raise InputError(f"{path}: holds a {kind} where a dictionary of tensors by name should be; save a state_dict()")
    return dict(content)


def _check_torch(path: Path) -> None:
    version = tuple(int(part) for part in re.findall(r"\d+", torch.__version__)[:2])
    if version < SAFE_TORCH:
        raise InputError(
            f"{path}: torch {torch.__version__} cannot read pickled weights safely; install torch 2.6 or newer, or "
            "convert the file to safetensors elsewhere"
        )


def _refusal(error: Exception) -> str:
    text = str(error)
    asked = re.search(r"GLOBAL ([\w.]+)", text)
    if asked:
        return (
            f"asks to load {asked[1]}, which is beyond tensors and plain values, so nothing in it was run; save the "
            "tensors alone: torch.save(model.state_dict(), FILE)"
        )
    return (
        f"torch's weights-only reader refuses it ({type(error).__name__}: {_first_line(error)[:160]}); if it was cut "
        "off, fetch it again, else save a state_dict() alone"
    )


def _first_line(error: BaseException) -> str:
    return " ".join(str(error).strip().split("\n", 1)[0].split()) or type(error).__name__


class _Skipped:
    """Stands in for numpy's scalars and their dtypes: an accuracy beside the weights is read as nothing at all."""

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


# numpy 1 and 2 spell the same constructor differently; these names, and no others, are added to torch's own list
_ALLOWED: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    (_Skipped, "numpy.core.multiarray.scalar"),
    (_Skipped, "numpy._core.multiarray.scalar"),
    (_Skipped, "numpy.dtype"),
]
