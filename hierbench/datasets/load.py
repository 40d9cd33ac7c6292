"""One loader: built-in data, the data root in whichever layout it has, or the Hub."""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hierbench.datasets import cifar_binary, folders, hub, parquet, wds
from hierbench.datasets.catalogue import check_split, get_spec
from hierbench.datasets.excluded import load_exclusion
from hierbench.datasets.images import ImageSet
from hierbench.datasets.lazy import Decoder, LazyPixels
from hierbench.datasets.source import IndexedSplit, Located, count_notes, split_names
from hierbench.datasets.spec import DatasetSpec, SplitSource
from hierbench.errors import InputError
from hierbench.paths import cache_dir, data_root

SMALL_SIDE = 64
"""Sets on grids up to this are kept in memory as one array (100,000 images of 64 x 64 are 1.2 GB)."""

SMALL_BYTES = 256 * 1024 * 1024
"""So are larger images up to this total."""

HUB, HUB_STREAM = "hub:", "hub:stream"
"""Data roots that are no folder: the Hub through its cache, and the Hub without keeping a file."""


def load_images(
    name: str,
    *,
    split: str | None = None,
    limit: int | None = None,
    without: str | None = None,
    root: str | os.PathLike[str] | None = None,
) -> ImageSet:
    """Return the samples of a split at the data set's pixel grid, in the class-stratified order.

    ``split`` defaults to the evaluation split; ``heldout`` is the tenth of ``train`` that training never
    sees, and ``train`` is the other nine. ``limit`` takes the first n of the stratified order (sampling
    rule ``stratified-v1``) and decodes no other image; ``without`` names a list of samples to leave out before that
    (see ``datasets.excluded``). Images come from ``root`` (else ``HIERBENCH_DATA_ROOT``),
    whose layout is found out (Parquet, image folders, WebDataset tars, CIFAR binaries), else from the Hub;
    ``hub:`` and ``hub:stream`` name the Hub where a data root is set. Large images are decoded when they are asked
    for: see ``LazyPixels``. Raises ``InputError`` naming the file and what is wrong with it.
    """
    spec = get_spec(name)
    chosen = check_split(spec, split or spec.evaluation_split)
    part = "train" if chosen == "heldout" else chosen
    if spec.base_name == "digits":
        from hierbench.datasets.digits import load_digits_split

        return _select(load_digits_split(spec, part), chosen, limit, without)
    cache = cache_dir()
    images, decoder = _open(spec, part, root, cache)
    selected = _select(images, chosen, limit, without)
    return _settle(selected, decoder, cache, limited=limit is not None)


def _select(images: ImageSet, chosen: str, limit: int | None, without: str | None) -> ImageSet:
    if chosen == "heldout":
        images = images.heldout()
    elif chosen in ("train", "pretrain"):
        images = images.without_heldout()
    if without is not None:
        exclusion = load_exclusion(without)
        images = images.leaving_out(exclusion.ids(images.spec.name, chosen), f"{exclusion.reason} ({without})")
    return images.limited(limit)


def _open(spec: DatasetSpec, part: str, root: str | os.PathLike[str] | None, cache: Path) -> tuple[ImageSet, Decoder]:
    """Return a whole split with its pixels still encoded, and what decodes them."""
    source = spec.splits[part]
    said = os.fspath(root) if root is not None else os.environ.get("HIERBENCH_DATA_ROOT", "")
    streamed, on_hub = said == HUB_STREAM, said == HUB
    base = None if streamed or on_hub else data_root(root)
    if streamed:
        indexed, where = hub.stream(spec, part, source, cache), f"{spec.hub_id}"
    else:
        found = hub.fetch(spec, part, source) if base is None else locate(base, spec, part, source)
        indexed, where = index(found, spec, part, cache), str(found.folder)
    notes = count_notes(spec, part, source, len(indexed.ids), where=where, local=base is not None)
    if base is None and spec.hub_revision is None and not streamed:
        notes = (*notes, f"the Hub copy {spec.hub_id} is unpinned")
    decoder = Decoder(indexed.blobs, spec.grid, indexed.ids)
    pixels = LazyPixels(decoder, np.arange(len(indexed.ids)))
    return ImageSet(spec, part, indexed.revision, indexed.ids, indexed.labels, pixels, notes), decoder


def locate(root: Path, spec: DatasetSpec, split: str, source: SplitSource) -> Located:
    """Return where a split lies in the data root, in whichever layout.

    A split that is there twice is an ``InputError`` naming both places; so is one that is not there, and a pickle.
    """
    names = [source.folder] + ([spec.base_name] if source.on_hub else [])
    there = [root / name for name in dict.fromkeys(names) if (root / name).is_dir()]
    found: list[Located] = []
    for folder in there:
        for layout in (parquet, folders, wds):
            found += layout.find(folder, spec, split, source)
    found += cifar_binary.find(root, spec, split, there)
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(
            f"dataset {spec.name}: split {split} is there twice, as {found[0]} and as {found[1]}; keep one of them"
        )
    cifar_binary.refuse_pickles(root, spec, there)
    if not there:
        raise InputError(f"dataset {spec.name}: no folder {source.folder!r} in the data root {root}")
    folder_names = " or ".join(f"{name}/" for name in split_names(split, source))
    raise InputError(
        f"dataset {spec.name}: no {source.prefix}-*.parquet in {there[0]}, nor class folders or tars in {folder_names}"
    )


def index(found: Located, spec: DatasetSpec, split: str, cache: Path | None) -> IndexedSplit:
    """Return the rows of files in one layout."""
    if found.layout == parquet.LAYOUT:
        return parquet.index(spec, split, found.files, cache)
    if found.layout == folders.LAYOUT:
        return folders.index(spec, split, found.folder, cache)
    if found.layout == wds.LAYOUT:
        classnames = found.folder.parent / "classnames.txt"
        return wds.index(spec, split, found.files, classnames, found.folder / "nshards.txt", cache)
    return cifar_binary.index(spec, split, found.files, cache)


def _settle(images: ImageSet, decoder: Decoder, cache: Path, *, limited: bool) -> ImageSet:
    """Decode small images now and for all; leave large ones for when they are asked for."""
    lazy = images.array
    if not isinstance(lazy, LazyPixels):
        return images
    height, width, _ = images.spec.grid
    if max(height, width) > SMALL_SIDE and lazy.nbytes > SMALL_BYTES:
        return images
    whole = len(decoder.names)
    target = cache / "pixels" / f"{_cache_key(images)}.npy"
    stored = _stored(target, (whole, *decoder.image_shape))
    if stored is not None:
        return replace(images, array=np.asarray(stored[lazy.rows]))
    if limited and len(lazy) < whole:
        return replace(images, array=lazy.load())  # nothing else is decoded
    pixels = LazyPixels(decoder, np.arange(whole)).load()
    _store(pixels, target)
    return replace(images, array=pixels[lazy.rows])


def _cache_key(images: ImageSet) -> str:
    spec = images.spec
    return hashlib.sha256(f"decode-v1|{images.revision}|{spec.image_column}|{spec.grid}".encode()).hexdigest()[:32]


def _stored(target: Path, shape: tuple[int, ...]) -> npt.NDArray[np.uint8] | None:
    if not target.is_file():
        return None
    try:
        stored: npt.NDArray[np.uint8] = np.load(target, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError):
        target.unlink(missing_ok=True)  # a torn file: decode again
        return None
    return stored if stored.shape == shape and stored.dtype == np.uint8 else None


def _store(pixels: npt.NDArray[np.uint8], target: Path) -> None:
    part = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=target.parent, suffix=".part", delete=False) as stream:
            part = Path(stream.name)
            np.save(stream, pixels)
        part.replace(target)
    except OSError:  # a cache that cannot be written only costs time
        if part is not None:
            part.unlink(missing_ok=True)
