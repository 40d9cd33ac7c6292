"""Splits from the Hugging Face Hub: fetched and cached, or streamed.

Cached: the split's own files, at the pinned revision, into the Hub's cache; a second run, offline too, reads them
there. They are the files a local copy of the repository has, so both have one revision hash. (``load_dataset``
would fetch every split of a repository and write all of it a second time as Arrow.) Streamed: through the
``datasets`` library, which reads the label column alone, then the images, and keeps no file.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from hierbench.datasets import parquet, wds
from hierbench.datasets.blobs import Blobs, Spool
from hierbench.datasets.labels import check_label_order
from hierbench.datasets.source import IndexedSplit, Located, check_labels, row_ids
from hierbench.datasets.spec import DatasetSpec, SplitSource
from hierbench.errors import InputError


def fetch(spec: DatasetSpec, split: str, source: SplitSource) -> Located:
    """Return a split's files in the Hub's cache, fetched where they are not there yet."""
    hub_id = _hub_id(spec, split, source)
    from huggingface_hub import HfApi, hf_hub_download

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it reports each retry; one line says it all
    try:
        listed = HfApi().list_repo_files(hub_id, repo_type="dataset", revision=spec.hub_revision)
        layout, names = _files_of(spec, source, listed)
        stored = [Path(hf_hub_download(hub_id, n, repo_type="dataset", revision=spec.hub_revision)) for n in names]
    except _transport_errors() as error:
        kept = _cached(spec, hub_id, source)
        if kept is None:
            raise InputError(_advice(spec, error)) from None
        layout, stored = kept
    files = [path for path in stored if path.suffix in (".parquet", ".tar")]
    return Located(layout, files[0].parent, tuple(wds.in_order(files) if layout == wds.LAYOUT else files))


def _hub_id(spec: DatasetSpec, split: str, source: SplitSource) -> str:
    if spec.hub_id is None or not source.on_hub:
        what = f"dataset {spec.name}" if spec.hub_id is None else f"split {split} of dataset {spec.name}"
        raise InputError(f"{what}: it is on no hub; name the folder that holds it with --data-root")
    return spec.hub_id


def _files_of(spec: DatasetSpec, source: SplitSource, listed: list[str]) -> tuple[str, list[str]]:
    """Return the layout and the names of a split's files among a repository's."""
    paths = [PurePosixPath(name) for name in listed]
    if spec.hub_config is not None and any(p.parts[0] == spec.hub_config for p in paths if len(p.parts) > 1):
        paths = [p for p in paths if p.parts[0] == spec.hub_config]
    tables = [p for p in paths if p.suffix == ".parquet"]
    tables = [p for p in tables if p.name.startswith(f"{source.prefix}-")] or [
        p for p in tables if p.parent.name == source.prefix
    ]
    if tables:
        return parquet.LAYOUT, sorted(map(str, tables))
    tars = [p for p in paths if p.suffix == ".tar" and p.parent.name == source.prefix]
    if tars:
        beside = {str(tars[0].parent / "nshards.txt"), str(tars[0].parent.parent / "classnames.txt")}
        return wds.LAYOUT, sorted(map(str, tars)) + sorted(beside & set(listed))
    raise InputError(
        f"dataset {spec.name}: {spec.hub_id} holds no {source.prefix}-*.parquet and no {source.prefix}/*.tar"
    )


def _cached(spec: DatasetSpec, hub_id: str, source: SplitSource) -> tuple[str, list[Path]] | None:
    """Return what an earlier run left in the Hub's cache, or None; a part of a split counts as nothing."""
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(hub_id, repo_type="dataset", revision=spec.hub_revision, local_files_only=True))
        there = [p.relative_to(folder).as_posix() for p in sorted(folder.rglob("*")) if p.is_file()]
        layout, names = _files_of(spec, source, there)
    except InputError:
        return None
    except _transport_errors():
        return None
    return layout, [folder / name for name in names]


def _advice(spec: DatasetSpec, error: Exception) -> str:
    from huggingface_hub.errors import GatedRepoError

    start = f"dataset {spec.name}: cannot be fetched from the Hub ({spec.hub_id}"
    if isinstance(error, GatedRepoError):
        where = f"https://huggingface.co/datasets/{spec.hub_id}"
        return f"{start}): it is gated; accept its terms at {where} and log in, or name a local copy with --data-root"
    return f"{start}); name a local copy with --data-root ({type(error).__name__})"


def _transport_errors() -> tuple[type[Exception], ...]:
    """Return what the Hub's client raises when it cannot deliver; newer versions speak through other clients."""
    from huggingface_hub.errors import HfHubHTTPError

    known: tuple[type[Exception], ...] = (HfHubHTTPError, OSError, ValueError)
    for client in ("httpx", "httpx2"):  # the newer versions' transports, whose errors are no OSError
        try:
            known = (*known, importlib.import_module(client).HTTPError)
        except ImportError:
            continue
    return known


def stream(spec: DatasetSpec, split: str, source: SplitSource, cache: Path | None) -> IndexedSplit:
    """Return a split whose images come over the wire when they are wanted; nothing is stored but those, for the run.

    Each run reads the stream as far as the last image it wants, so a split that is used again is better fetched.
    """
    hub_id = _hub_id(spec, split, source)
    try:
        revision = spec.hub_revision or _head(hub_id)
        table = _open_stream(hub_id, spec, source, revision)
        features = table.features or {}
        where = f"{hub_id}@{revision}"
        for column in (spec.image_column, spec.label_column):
            if column not in features:
                raise InputError(f"{where}: no column {column!r}; it has {', '.join(features)}")
        names = getattr(features[spec.label_column], "names", None)
        if names is not None:
            check_label_order(names, spec, where=where)
        column = _open_stream(hub_id, spec, source, revision, columns=[spec.label_column])
        values = [row[spec.label_column] for row in column]
    except _transport_errors() as error:
        raise InputError(_advice(spec, error)) from None
    labels = check_labels(values, spec, where=f"{where}: column {spec.label_column!r}")
    return IndexedSplit(
        revision=f"hub:{where}",
        ids=row_ids(split, len(labels)),
        labels=labels,
        blobs=StreamBlobs(spec, hub_id, source, revision, cache),
    )


def _head(hub_id: str) -> str:
    from huggingface_hub import HfApi

    return str(HfApi().dataset_info(hub_id).sha)


def _open_stream(
    hub_id: str, spec: DatasetSpec, source: SplitSource, revision: str, columns: list[str] | None = None
) -> Any:
    from datasets import load_dataset

    chosen = {} if columns is None else {"columns": columns}
    try:
        return load_dataset(
            hub_id, name=spec.hub_config, split=source.prefix, revision=revision, streaming=True, **chosen
        )
    except TypeError:
        raise InputError(
            f"dataset {spec.name}: {hub_id} is no Parquet, so its labels cannot be streamed alone; "
            "fetch it with --data-root hub:"
        ) from None


class StreamBlobs(Blobs):
    """Images of a streamed split: one pass as far as the last row that is wanted."""

    def __init__(self, spec: DatasetSpec, hub_id: str, source: SplitSource, revision: str, cache: Path | None) -> None:
        self.spec = spec
        self.hub_id = hub_id
        self.source = source
        self.revision = revision
        self.spool = Spool(cache / "spool" if cache is not None else None)

    def prepare(self, rows: npt.NDArray[np.int64]) -> None:
        """Read on to the last of the rows, and keep them."""
        try:
            self.spool.add(self._pass(set(rows.tolist())))
        except _transport_errors() as error:
            raise InputError(_advice(self.spec, error)) from None

    def _pass(self, wanted: set[int]) -> Iterator[tuple[int, bytes]]:
        from datasets import Image

        column = self.spec.image_column
        table = _open_stream(self.hub_id, self.spec, self.source, self.revision, columns=[column])
        last = max(wanted)
        for row, cells in enumerate(table.cast_column(column, Image(decode=False))):
            if row in wanted:
                yield row, parquet.image_bytes(cells[column])
            if row == last:
                return

    def read(self, row: int) -> bytes:
        """Return the encoded image of a row that was prepared."""
        return self.spool.read(row)
