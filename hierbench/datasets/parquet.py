"""A split in Parquet files, as the Hub has them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hierbench.datasets.blobs import Blobs, Spool
from hierbench.datasets.digests import files_digest
from hierbench.datasets.labels import check_label_order
from hierbench.datasets.source import IndexedSplit, Located, check_labels, check_shards, row_ids
from hierbench.datasets.spec import DatasetSpec, SplitSource
from hierbench.errors import InputError

if TYPE_CHECKING:
    import pyarrow.parquet as pq

LAYOUT = "Parquet files"
READ_ROWS = 64


def find(folder: Path, spec: DatasetSpec, split: str, source: SplitSource) -> list[Located]:
    """Return the places below ``folder`` that hold a split's Parquet files.

    They are ``<prefix>-*.parquet`` there or in a folder of it (a copy of the Hub repository), and
    ``<prefix>/*.parquet`` there or in a folder of it (the Hub's own conversion).
    """
    del spec, split
    found = []
    inside = sorted(p for p in folder.iterdir() if p.is_dir())
    for place in [folder, *inside, *(p / source.prefix for p in inside)]:
        files = sorted(place.glob(f"{source.prefix}-*.parquet"))
        if place.name == source.prefix and not files:
            files = sorted(place.glob("*.parquet"))
        if files:
            found.append(Located(LAYOUT, place, tuple(files)))
    return found


def index(spec: DatasetSpec, split: str, paths: Sequence[Path], cache: Path | None) -> IndexedSplit:
    """Read everything but the images: columns, label order against the files' own class names, labels.

    Raises ``InputError`` naming the file and the column.
    """
    check_shards(paths, where=str(paths[0].parent))
    labels = []
    counts = []
    for path in paths:
        table = _open(path)
        columns = table.schema_arrow.names
        for column in (spec.image_column, spec.label_column):
            if column not in columns:
                raise InputError(f"{path}: no column {column!r}; it has {', '.join(columns)}")
        names = label_names(table.schema_arrow.metadata or {}, spec.label_column)
        if names is not None:
            check_label_order(names, spec, where=str(path))
        values = table.read([spec.label_column])[spec.label_column].to_pylist()
        found = check_labels(values, spec, where=f"{path}: column {spec.label_column!r}")
        if spec.check_column is not None and spec.check_column in columns:
            _check_ids(table, spec, spec.check_column, found, where=str(path))
        labels.append(found)
        counts.append(len(found))
    all_labels = np.concatenate(labels)
    return IndexedSplit(
        revision=f"file:sha256:{files_digest(paths, cache)}",
        ids=row_ids(split, len(all_labels)),
        labels=all_labels,
        blobs=ParquetBlobs(paths, counts, spec.image_column, cache),
    )


def label_names(metadata: dict[bytes, bytes], column: str) -> list[str] | None:
    """Return the class names that the ``datasets`` library stored beside a column, or None."""
    try:
        names = json.loads(metadata[b"huggingface"])["info"]["features"][column]["names"]
    except (KeyError, ValueError, TypeError):
        return None
    return [str(name) for name in names] if isinstance(names, list) else None


def _check_ids(
    table: pq.ParquetFile, spec: DatasetSpec, column: str, labels: npt.NDArray[np.int64], *, where: str
) -> None:
    ids = spec.class_ids
    for row, (said, label) in enumerate(zip(table.read([column])[column].to_pylist(), labels.tolist(), strict=True)):
        if said != ids[label]:
            raise InputError(f"{where}: row {row} has label {label}, which is {ids[label]!r}, and {column} {said!r}")


def _open(path: Path) -> pq.ParquetFile:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{path}: not a readable Parquet file ({type(error).__name__})") from None


class ParquetBlobs(Blobs):
    """Images of Parquet files.

    A row of Parquet cannot be read alone, so the rows that are wanted are gathered in one pass over the row groups
    that hold them, in the order of the files.
    """

    def __init__(self, paths: Sequence[Path], counts: Sequence[int], column: str, cache: Path | None) -> None:
        self.paths = tuple(paths)
        self.starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self.column = column
        self.spool = Spool(cache / "spool" if cache is not None else None)

    def prepare(self, rows: npt.NDArray[np.int64]) -> None:
        """Gather the encoded images of some rows."""
        self.spool.add(self._gather(np.unique(rows)))

    def read(self, row: int) -> bytes:
        """Return the encoded image of a row that was prepared."""
        return self.spool.read(row)

    def _gather(self, rows: npt.NDArray[np.int64]) -> Iterator[tuple[int, bytes]]:
        for index, path in enumerate(self.paths):
            wanted = rows[(rows >= self.starts[index]) & (rows < self.starts[index + 1])]
            if len(wanted):
                yield from self._gather_file(path, int(self.starts[index]), wanted)

    def _gather_file(self, path: Path, first: int, wanted: npt.NDArray[np.int64]) -> Iterator[tuple[int, bytes]]:
        import pyarrow as pa

        table = _open(path)
        keep = set(wanted.tolist())
        start = first
        for group in range(table.num_row_groups):
            count = table.metadata.row_group(group).num_rows
            inside = wanted[(wanted >= start) & (wanted < start + count)]
            if len(inside):
                row = start
                try:
                    for batch in table.iter_batches(READ_ROWS, row_groups=[group], columns=[self.column]):
                        for place in range(batch.num_rows):
                            if row + place in keep:
                                yield row + place, image_bytes(batch.column(0)[place].as_py())
                        row += batch.num_rows
                except (pa.ArrowException, OSError) as error:
                    raise InputError(f"{path}: row group {group} cannot be read ({type(error).__name__})") from None
            start += count


def image_bytes(value: Any) -> bytes:
    """Return the bytes of an image cell: a struct with ``bytes``, or bytes themselves; empty where there are none."""
    data = value.get("bytes") if isinstance(value, dict) else value
    return data if isinstance(data, bytes) else b""
