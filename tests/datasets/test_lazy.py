"""Large sets are decoded when they are asked for: the same pixels, little memory, and errors at their own row."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hierbench.datasets import load
from hierbench.datasets.blobs import Blobs, RangeBlobs, Spool
from hierbench.datasets.catalogue import get_spec
from hierbench.datasets.decode import decode_image
from hierbench.datasets.lazy import Decoder, LazyPixels
from hierbench.datasets.load import load_images
from hierbench.datasets.sampling import stratified_order
from hierbench.errors import InputError


class Counting(Blobs):
    """Rows whose pixels are their own number; remembers which were decoded, and where."""

    def __init__(self, bad: int | None = None) -> None:
        self.decoded: list[int] = []
        self.prepared: list[int] = []
        self.threads: set[str] = set()
        self.bad = bad

    def prepare(self, rows: npt.NDArray[np.int64]) -> None:
        self.prepared += rows.tolist()

    def read(self, row: int) -> bytes:
        return b""

    def decode(self, row: int, grid: tuple[int, int, int], *, where: str) -> npt.NDArray[np.uint8]:
        self.decoded.append(row)
        self.threads.add(threading.current_thread().name)
        if row == self.bad:
            raise InputError(f"{where}: not a readable image")
        return np.full((grid[2], *grid[:2]), row % 251, dtype=np.uint8)


def lazily(count: int, bad: int | None = None) -> tuple[Counting, LazyPixels]:
    blobs = Counting(bad)
    decoder = Decoder(blobs, (4, 4, 3), [f"test/{i:06d}" for i in range(count)], threads=2)
    return blobs, LazyPixels(decoder, np.arange(count))


@given(st.lists(st.lists(st.integers(0, 59), max_size=20), max_size=6), st.permutations(range(60)))
@settings(max_examples=40, deadline=None)
def test_lazy_pixels_are_an_arrays(asked: list[list[int]], order: list[int]) -> None:
    _, lazy = lazily(60)
    whole = lazy.load()
    assert (whole[:, 0, 0, 0] == np.arange(60)).all()
    view, array = lazy.view(np.array(order)), whole[np.array(order)]
    for indices in asked:
        places = np.array(indices, dtype=np.int64)
        assert (view[places] == array[places]).all()
    for start in range(0, 60, 7):
        places = np.arange(start, min(60, start + 7))
        assert (view[places] == array[places]).all()


def test_a_pass_in_order_decodes_each_image_once_and_off_the_main_thread() -> None:
    blobs, lazy = lazily(100)
    for start in range(0, 100, 30):
        lazy[np.arange(start, min(100, start + 30))]
    lazy.decoder.wait()
    assert sorted(blobs.decoded) == list(range(100))
    assert all("hierbench-decode" in name for name in blobs.threads)


def test_the_next_chunk_is_decoded_ahead_and_no_more() -> None:
    blobs, lazy = lazily(100)
    lazy[np.arange(0, 10)]
    lazy.decoder.wait()
    assert sorted(blobs.decoded) == list(range(20))
    lazy[np.array([70, 3])]  # a jump is no pass
    lazy.decoder.wait()
    assert len(blobs.decoded) == 22


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(2, 12)), min_size=2, max_size=8))
@settings(max_examples=40, deadline=None)
def test_a_jump_never_gets_what_was_decoded_for_another_place(chunks: list[tuple[int, int]]) -> None:
    _, lazy = lazily(60)
    for start, length in [(0, 10), (30, 10), *chunks]:
        places = np.arange(start, start + length)
        assert (lazy[places][:, 0, 0, 0] == places).all()


def test_what_is_decoded_ahead_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    from hierbench.datasets import lazy as module

    monkeypatch.setattr(module, "AHEAD_BYTES", 5 * 48)
    blobs, lazy = lazily(40)
    first = lazy[np.arange(0, 20)]
    lazy.decoder.wait()
    assert len(blobs.decoded) == 25
    second = lazy[np.arange(20, 40)]
    assert len(blobs.decoded) == 40 and (np.concatenate([first, second])[:, 0, 0, 0] == np.arange(40)).all()


def test_only_rows_of_a_view_are_gathered_and_none_twice() -> None:
    blobs, lazy = lazily(50)
    few = lazy.view(np.array([40, 3, 17]))
    few[np.array([0])]
    assert blobs.prepared == [40, 3, 17]
    lazy[np.array([1])]
    assert sorted(blobs.prepared) == list(range(50))


def test_a_bad_image_ahead_is_named_only_when_it_is_asked_for() -> None:
    _, lazy = lazily(40, bad=12)
    lazy[np.arange(0, 10)]
    with pytest.raises(InputError, match="test/000012"):
        lazy[np.arange(10, 20)]
    assert (lazy[np.arange(20, 30)][:, 0, 0, 0] == np.arange(20, 30)).all()


def test_the_first_bad_row_is_the_one_that_is_named(tmp_path: Path, copies: Any) -> None:
    blobs = [*copies.pictures(40)]
    blobs[35] = blobs[21] = b"no image"
    copies.parquet(tmp_path, "food101", blobs=blobs, labels=[0] * 40)
    lazy = load_images("food101", root=tmp_path, limit=1).array
    assert lazy.shape == (1, 3, 224, 224)
    with pytest.raises(InputError, match=r"validation/0000(21|35)"):
        load_images("food101", root=tmp_path)


def test_large_sets_stay_lazy_and_give_the_pixels_of_the_array(
    tmp_path: Path, copies: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies.parquet(tmp_path, "food101", blobs=copies.pictures(23, "JPEG"), labels=list(range(23)))
    whole = load_images("food101", root=tmp_path)
    assert isinstance(whole.array, np.ndarray)
    monkeypatch.setattr(load, "SMALL_BYTES", 1000)
    lazy = load_images("food101", root=tmp_path)
    assert isinstance(lazy.array, LazyPixels)
    assert lazy.ids == whole.ids and lazy.sample_hash == whole.sample_hash and lazy.revision == whole.revision
    for places, pixels in lazy.batches(5):
        assert (pixels == whole.pixels(places)).all()
    few = lazy.limited(4)
    assert (few.pixels([2, 0]) == whole.limited(4).pixels([2, 0])).all()
    assert len(lazy.of_classes([lazy.spec.class_ids[3]])) == 1


@pytest.mark.parametrize("name", ["cifar10", "food101"])
def test_a_limit_decodes_only_what_it_takes(
    name: str, tmp_path: Path, copies: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    split, labels, taken = get_spec(name).evaluation_split, [i % 10 for i in range(30)], 12
    order = stratified_order([f"{split}/{i:06d}" for i in range(30)], np.array(labels))
    blobs = copies.pictures(30)
    blobs[order[taken]] = b"no image"  # the first that is left out
    copies.parquet(tmp_path, name, blobs=blobs, labels=labels)
    decoded: list[str] = []
    real = decode_image

    def watched(data: bytes, grid: tuple[int, int, int], *, where: str) -> npt.NDArray[np.uint8]:
        decoded.append(where)
        return real(data, grid, where=where)

    monkeypatch.setattr("hierbench.datasets.blobs.decode_image", watched)
    images = load_images(name, root=tmp_path, limit=taken)
    images.pixels(np.arange(taken))
    assert sorted(decoded) == sorted(images.ids) and len(decoded) == taken
    with pytest.raises(InputError, match="not a readable image"):
        load_images(name, root=tmp_path, limit=taken + 1)


def test_a_whole_small_set_is_decoded_once_and_kept(
    tmp_path: Path, copies: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies.parquet(tmp_path, "cifar10", split="train", blobs=copies.pictures(60), labels=[i % 10 for i in range(60)])
    train = load_images("cifar10", split="train", root=tmp_path)
    monkeypatch.setattr("hierbench.datasets.blobs.decode_image", None)
    again, heldout = (load_images("cifar10", split=s, root=tmp_path) for s in ("train", "heldout"))
    assert (np.asarray(again.array) == np.asarray(train.array)).all()
    assert not set(heldout.ids) & set(train.ids) and len(heldout) + len(train) == 60
    assert len(load_images("cifar10", split="train", root=tmp_path, limit=7)) == 7


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=12), st.integers(0, 60))
@settings(max_examples=40, deadline=None)
def test_a_spool_returns_what_it_was_given(items: list[bytes], memory: int) -> None:
    spool = Spool(None, memory_bytes=memory)
    spool.add(enumerate(items[: len(items) // 2]))
    spool.add((i, items[i]) for i in range(len(items) // 2, len(items)))
    assert [spool.read(i) for i in range(len(items))] == items
    assert spool.on_disk == (sum(map(len, items)) > memory)


def test_a_spool_leaves_no_file(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", memory_bytes=1)
    spool.add([(0, b"abc"), (1, b"de")])
    assert spool.on_disk and spool.read(1) == b"de"
    if sys.platform != "win32":
        assert list((tmp_path / "spool").iterdir()) == []


def test_a_file_that_shrank_is_named(tmp_path: Path) -> None:
    target = tmp_path / "0.tar"
    target.write_bytes(b"0123456789")
    blobs = RangeBlobs([target], np.array([[0, 2, 3], [0, 8, 5]]))
    assert blobs.read(0) == b"234"
    with pytest.raises(InputError, match=r"0\.tar: ends at byte 10, inside a member"):
        blobs.read(1)
