"""A split as WebDataset tars in the layout of the CLIP benchmark.

``<dataset>/<split>/<n>.tar`` with members ``<key>.jpg`` (or ``png``, ``webp``) and ``<key>.cls``, beside
``<split>/nshards.txt`` and ``<dataset>/classnames.txt``. Nothing is ever unpacked: a member's name is only a word
that pairs an image with its label, so it cannot reach a place on the disk.
"""

from __future__ import annotations

import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hierbench.datasets.blobs import RangeBlobs
from hierbench.datasets.digests import files_digest
from hierbench.datasets.labels import check_prose_names
from hierbench.datasets.source import IndexedSplit, Located, check_labels, row_ids, split_names
from hierbench.datasets.spec import DatasetSpec, SplitSource
from hierbench.errors import InputError

LAYOUT = "WebDataset tars"
IMAGES = frozenset({"jpg", "jpeg", "png", "webp"})
LABEL_BYTES = 32
"""A label is a short number; a longer member is none."""


def find(folder: Path, spec: DatasetSpec, split: str, source: SplitSource) -> list[Located]:
    """Return ``<split>/`` below ``folder`` if it holds tars."""
    del spec
    found = []
    for name in split_names(split, source):
        files = in_order(list((folder / name).glob("*.tar")))
        if files:
            found.append(Located(LAYOUT, folder / name, tuple(files)))
    return found


def in_order(files: Sequence[Path]) -> list[Path]:
    """Return tars in the order of their numbers (``10.tar`` after ``9.tar``), other names after them."""

    def key(path: Path) -> tuple[int, int, str]:
        return (0, int(path.stem), "") if path.stem.isdecimal() else (1, 0, path.name)

    return sorted(files, key=key)


def index(
    spec: DatasetSpec, split: str, files: Sequence[Path], classnames: Path, nshards: Path, cache: Path | None
) -> IndexedSplit:
    """Pair images with labels over all tars; whatever is odd in one is an ``InputError`` naming tar and member."""
    _check_shards(files, nshards)
    if classnames.is_file():
        check_prose_names(_lines(classnames), spec, where=str(classnames))
    places: list[tuple[int, int, int]] = []
    labels: list[int] = []
    for number, path in enumerate(files):
        for key, image, label in _pairs(path):
            if image is None or label is None:
                missing = "image (jpg, png or webp)" if image is None else "label (cls)"
                raise InputError(f"{path}: sample {key!r} has no {missing}")
            places.append((number, *image))
            labels.append(int(check_labels([label], spec, where=f"{path}: sample {key!r}")[0]))
    return IndexedSplit(
        revision=f"wds:sha256:{files_digest(files, cache)}",
        ids=row_ids(split, len(labels)),
        labels=np.array(labels, dtype=np.int64),
        blobs=RangeBlobs(files, np.array(places, dtype=np.int64).reshape(-1, 3)),
    )


def _lines(path: Path) -> list[str]:
    try:
        return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({type(error).__name__})") from None


def _check_shards(files: Sequence[Path], nshards: Path) -> None:
    if not nshards.is_file():
        return
    said = _lines(nshards)
    if len(said) != 1 or not said[0].strip().isdecimal():
        raise InputError(f"{nshards}: should hold one number, of tars")
    if int(said[0]) != len(files):
        raise InputError(f"{nshards}: says {int(said[0])} tars; {len(files)} are there")


def _pairs(path: Path) -> list[tuple[str, tuple[int, int] | None, int | None]]:
    """Return (key, place of the image, label) of each sample in a tar, in the order the keys first come."""
    images: dict[str, tuple[int, int]] = {}
    labels: dict[str, int] = {}
    order: dict[str, None] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                if member.isdir():
                    continue
                if not member.isreg():
                    raise InputError(f"{path}: member {member.name!r} is a link or a device; only files are read")
                folder, _, name = member.name.rpartition("/")
                stem, _, suffix = name.partition(".")
                key = f"{folder}/{stem}"
                suffix = suffix.lower()
                if suffix not in IMAGES and suffix != "cls":
                    continue
                order.setdefault(key)
                if key in (labels if suffix == "cls" else images):
                    raise InputError(f"{path}: sample {key!r} has two of {'label' if suffix == 'cls' else 'image'}")
                if suffix == "cls":
                    labels[key] = _label(tar, member, path)
                else:
                    images[key] = (member.offset_data, member.size)
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: not a whole uncompressed tar ({reason})") from None
    return [(key, images.get(key), labels.get(key)) for key in order]


def _label(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> int:
    stream = tar.extractfile(member) if member.size <= LABEL_BYTES else None
    text = stream.read() if stream is not None else b"?"
    try:
        return int(text.decode("ascii").strip())
    except (UnicodeDecodeError, ValueError):
        raise InputError(f"{path}: member {member.name!r} should be a label, a number") from None
