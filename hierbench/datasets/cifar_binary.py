"""CIFAR in its authors' binary files; the pickled ones are refused, since reading a pickle runs what is in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from hierbench.datasets.blobs import Blobs
from hierbench.datasets.digests import files_digest
from hierbench.datasets.labels import check_label_order
from hierbench.datasets.source import IndexedSplit, Located, check_labels, row_ids
from hierbench.datasets.spec import DatasetSpec
from hierbench.errors import InputError

LAYOUT = "CIFAR binaries"
SIDE = 32
PIXELS = 3 * SIDE * SIDE


@dataclass(frozen=True)
class _Variant:
    folder: str
    pickled: tuple[str, ...]
    archive: str
    files: dict[str, tuple[str, ...]]
    names: str
    label_bytes: int
    """Bytes before the pixels; the last of them is the label."""


VARIANTS = {
    "cifar10": _Variant(
        folder="cifar-10-batches-bin",
        pickled=("cifar-10-batches-py", "cifar-10-python.tar.gz"),
        archive="cifar-10-binary.tar.gz",
        files={"train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test": ("test_batch.bin",)},
        names="batches.meta.txt",
        label_bytes=1,
    ),
    "cifar100": _Variant(
        folder="cifar-100-binary",
        pickled=("cifar-100-python", "cifar-100-python.tar.gz"),
        archive="cifar-100-binary.tar.gz",
        files={"train": ("train.bin",), "test": ("test.bin",)},
        names="fine_label_names.txt",
        label_bytes=2,
    ),
}


def find(root: Path, spec: DatasetSpec, split: str, folders: Sequence[Path]) -> list[Located]:
    """Return the folder with the binaries, in the data root, in one of ``folders``, or one of these itself."""
    variant = VARIANTS.get(spec.base_name)
    if variant is None or split not in variant.files:
        return []
    places = dict.fromkeys([root / variant.folder, *(f / variant.folder for f in folders), *folders])
    found = []
    for place in places:
        if not place.is_dir():
            continue
        files = tuple(place / name for name in variant.files[split])
        there = [f for f in files if f.is_file()]
        if there and len(there) < len(files):
            missing = next(f for f in files if f not in there)
            raise InputError(f"{missing}: no such file; {spec.name} {split} is {len(files)} of them")
        if there:
            found.append(Located(LAYOUT, place, files))
    return found


def refuse_pickles(root: Path, spec: DatasetSpec, folders: Sequence[Path]) -> None:
    """Say what to get instead where only the pickled version is there."""
    variant = VARIANTS.get(spec.base_name)
    for place in [root, *folders] if variant is not None else []:
        for name in variant.pickled if variant is not None else ():
            if variant is not None and ((place / name).exists() or (place.name == name)):
                raise InputError(
                    f"{place / name}: Python pickles, which can run code when read; unpack {variant.archive} instead"
                )


def index(spec: DatasetSpec, split: str, files: Sequence[Path], cache: Path | None) -> IndexedSplit:
    """Read labels and the list of names; rows are numbered as in the Hub's copy, which is in the same order."""
    variant = VARIANTS[spec.base_name]
    record = variant.label_bytes + PIXELS
    names = files[0].parent / variant.names
    if names.is_file():
        lines = [line.strip() for line in names.read_text(encoding="utf-8", errors="replace").splitlines()]
        check_label_order([line for line in lines if line], spec, where=str(names))
    parts = []
    for path in files:
        size = path.stat().st_size
        if size == 0 or size % record:
            raise InputError(f"{path}: {size} bytes are no whole number of {record}-byte records: it is cut short")
        parts.append(np.fromfile(path, dtype=np.uint8).reshape(-1, record))
    rows = np.concatenate(parts)
    labels = check_labels(rows[:, variant.label_bytes - 1].tolist(), spec, where=str(files[0]))
    return IndexedSplit(
        revision=f"cifar-binary:sha256:{files_digest(files, cache)}",
        ids=row_ids(split, len(labels)),
        labels=labels,
        blobs=RawBlobs(rows[:, variant.label_bytes :].reshape(-1, 3, SIDE, SIDE)),
    )


class RawBlobs(Blobs):
    """Pixels that were never encoded."""

    def __init__(self, pixels: npt.NDArray[np.uint8]) -> None:
        self.values = pixels

    def read(self, row: int) -> bytes:
        """Return the raw bytes, colour by colour."""
        return bytes(self.values[row].tobytes())

    def decode(self, row: int, grid: tuple[int, int, int], *, where: str) -> npt.NDArray[np.uint8]:
        """Return the pixels, resized where the grid is another one."""
        del where
        height, width, _ = grid
        if (height, width) == (SIDE, SIDE):
            return np.asarray(self.values[row])
        image = Image.fromarray(np.ascontiguousarray(self.values[row].transpose(1, 2, 0)))
        fitted = ImageOps.fit(image, (width, height), method=Image.Resampling.BICUBIC)
        return np.asarray(fitted, dtype=np.uint8).transpose(2, 0, 1)
