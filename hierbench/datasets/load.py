"""One loader: built-in data, the data root, or the Hub."""

from __future__ import annotations

import importlib
import logging
import os
from pathlib import Path

from hierbench.datasets.catalogue import check_split, get_spec
from hierbench.datasets.images import ImageSet
from hierbench.datasets.spec import DatasetSpec, SplitSource
from hierbench.errors import InputError
from hierbench.paths import cache_dir, data_root


def load_images(
    name: str,
    *,
    split: str | None = None,
    limit: int | None = None,
    root: str | os.PathLike[str] | None = None,
) -> ImageSet:
    """Return the samples of a split at the data set's pixel grid, in the class-stratified order.

    ``split`` defaults to the evaluation split; ``heldout`` is the tenth of ``train`` that training never
    sees, and ``train`` is the other nine. ``limit`` takes the first n of the stratified order (sampling
    rule ``stratified-v1``). Images come from ``root`` (else ``HIERBENCH_DATA_ROOT``), else from the Hub.
    """
    spec = get_spec(name)
    chosen = check_split(spec, split or spec.evaluation_split)
    part = "train" if chosen == "heldout" else chosen
    images = _load_whole(spec, part, root)
    if chosen == "heldout":
        images = images.heldout()
    elif chosen in ("train", "pretrain"):
        images = images.without_heldout()
    return images.limited(limit)


def _load_whole(spec: DatasetSpec, part: str, root: str | os.PathLike[str] | None) -> ImageSet:
    if spec.base_name == "digits":
        from hierbench.datasets.digits import load_digits_split

        return load_digits_split(spec, part)
    from hierbench.datasets.parquet import find_files, load_parquet_split

    source = spec.splits[part]
    base = data_root(root)
    if base is not None:
        return load_parquet_split(spec, part, find_files(base, spec, source), cache_dir())
    return load_parquet_split(spec, part, _hub_files(spec, source), cache_dir())


def _hub_files(spec: DatasetSpec, source: SplitSource) -> list[Path]:
    """Fetch the split's Parquet files from the Hub's own conversion branch or the repository."""
    if spec.hub_id is None:
        raise InputError(f"dataset {spec.name}: it is on no hub; name its folder with --data-root")
    from huggingface_hub import HfApi, hf_hub_download

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it reports each retry; one line says it all
    advice = f"dataset {spec.name}: cannot be fetched from the Hub ({spec.hub_id}); name a local copy with --data-root"
    try:
        listed = HfApi().list_repo_files(spec.hub_id, repo_type="dataset", revision=spec.hub_revision)
        names = sorted(n for n in listed if n.endswith(".parquet") and Path(n).name.startswith(f"{source.prefix}-"))
        if not names:
            raise InputError(f"dataset {spec.name}: {spec.hub_id} holds no {source.prefix}-*.parquet")
        return [Path(hf_hub_download(spec.hub_id, n, repo_type="dataset", revision=spec.hub_revision)) for n in names]
    except _transport_errors() as error:
        raise InputError(f"{advice} ({type(error).__name__})") from None


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
