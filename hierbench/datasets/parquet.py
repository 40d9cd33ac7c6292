"""Reading a split from Parquet files in the Hub's layout."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hierbench.datasets.decode import decode_all
from hierbench.datasets.images import ImageSet
from hierbench.datasets.spec import DatasetSpec, SplitSource
from hierbench.errors import InputError


def find_files(root: Path, spec: DatasetSpec, source: SplitSource) -> list[Path]:
    """Return the Parquet files of a split under the data root, or raise ``InputError`` saying what is missing."""
    folder = root / source.folder
    if not folder.is_dir():
        raise InputError(f"dataset {spec.name}: no folder {source.folder!r} in the data root {root}")
    found = sorted(folder.glob(f"{source.prefix}-*.parquet"))
    if not found:
        raise InputError(f"dataset {spec.name}: no {source.prefix}-*.parquet in {folder}")
    return found


def files_hash(paths: list[Path]) -> str:
    """Return the SHA-256 of the files' bytes, in order."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return f"file:sha256:{digest.hexdigest()}"


def load_parquet_split(spec: DatasetSpec, split: str, paths: list[Path], cache: Path | None) -> ImageSet:
    """Read one split from Parquet files in the Hub's layout.

    Checks the columns, the label order against the file's own class names, and every label's range;
    decoded pixels are kept under ``cache`` by the hash of their source.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    labels: list[npt.NDArray[np.int64]] = []
    for path in paths:
        try:
            table = pq.ParquetFile(path)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise InputError(f"{path}: not a readable Parquet file ({type(error).__name__})") from None
        columns = table.schema_arrow.names
        for column in (spec.image_column, spec.label_column):
            if column not in columns:
                raise InputError(f"{path}: no column {column!r}; it has {', '.join(columns)}")
        _check_label_order(path, table.schema_arrow.metadata or {}, spec)
        labels.append(_labels(path, table.read([spec.label_column])[spec.label_column].to_pylist(), spec))
    all_labels = np.concatenate(labels)
    ids = tuple(f"{split}/{row:06d}" for row in range(len(all_labels)))
    revision = files_hash(paths)
    pixels = _cached_pixels(spec, paths, ids, revision, cache)
    return ImageSet(spec, split, revision, ids, all_labels, pixels)


def _check_label_order(path: Path, metadata: dict[bytes, bytes], spec: DatasetSpec) -> None:
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        names = features[spec.label_column].get("names")
    except (KeyError, ValueError, AttributeError):
        return
    if names is None:
        return
    for index, (theirs, ours) in enumerate(zip(names, spec.class_ids, strict=False)):
        if theirs != ours:
            raise InputError(f"{path}: label {index} is {theirs!r} there and {ours!r} in {spec.name}'s class table")
    if len(names) != len(spec.class_ids):
        raise InputError(f"{path}: {len(names)} class names; {spec.name} has {len(spec.class_ids)}")


def _labels(path: Path, values: list[Any], spec: DatasetSpec) -> npt.NDArray[np.int64]:
    if values and isinstance(values[0], str):
        index = {c: i for i, c in enumerate(spec.class_ids)}
        unknown = next((v for v in values if v not in index), None)
        if unknown is not None:
            raise InputError(f"{path}: column {spec.label_column!r} holds {unknown!r}, no class of {spec.name}")
        return np.array([index[v] for v in values], dtype=np.int64)
    bad = next((v for v in values if not isinstance(v, int) or not 0 <= v < len(spec.class_ids)), None)
    if bad is not None:
        raise InputError(
            f"{path}: column {spec.label_column!r} holds {bad!r}; labels are 0 to {len(spec.class_ids) - 1}"
        )
    return np.array(values, dtype=np.int64)


def _cached_pixels(
    spec: DatasetSpec, paths: list[Path], ids: tuple[str, ...], revision: str, cache: Path | None
) -> npt.NDArray[np.uint8]:
    height, width, channels = spec.grid
    shape = (len(ids), channels, height, width)
    key = hashlib.sha256(f"decode-v1|{revision}|{spec.image_column}|{spec.grid}".encode()).hexdigest()[:32]
    target = cache / "pixels" / f"{key}.npy" if cache is not None else None
    if target is not None and target.is_file():
        try:
            stored = np.load(target, allow_pickle=False)
            if stored.shape == shape and stored.dtype == np.uint8:
                return np.asarray(stored)
        except (OSError, ValueError):
            target.unlink(missing_ok=True)  # a torn file: decode again
    pixels = decode_all(_blobs(paths, spec.image_column), len(ids), spec.grid, names=ids)
    if target is not None:
        _store(pixels, target)
    return pixels


def _store(pixels: npt.NDArray[np.uint8], target: Path) -> None:
    import tempfile

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=target.parent, suffix=".part", delete=False) as stream:
            np.save(stream, pixels)
        Path(stream.name).replace(target)
    except OSError:
        return  # a cache that cannot be written only costs time


def _blobs(paths: list[Path], column: str) -> Iterator[bytes]:
    import pyarrow.parquet as pq

    for path in paths:
        for batch in pq.ParquetFile(path).iter_batches(batch_size=1024, columns=[column]):
            for value in batch.column(0).to_pylist():
                data = value.get("bytes") if isinstance(value, dict) else value
                yield data if isinstance(data, bytes) else b""
