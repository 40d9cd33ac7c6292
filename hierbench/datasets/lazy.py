"""Pixels decoded when they are asked for, off the main thread, the next chunk ahead of time."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hierbench.datasets.blobs import Blobs
from hierbench.errors import InputError

Pixels = npt.NDArray[np.uint8]
Rows = npt.NDArray[np.int64]

AHEAD_BYTES = 128 * 1024 * 1024
"""At most this many bytes of pixels are decoded ahead."""

TASK_IMAGES = 16
"""Images a thread decodes before it looks for more work: few, so that threads end together."""


@dataclass(frozen=True)
class _Job:
    """Pixels that threads are filling in."""

    rows: Rows
    pixels: Pixels
    parts: tuple[Future[None], ...]

    def wait(self) -> Pixels:
        """Return the pixels; the first bad row's error if there is one."""
        for part in self.parts:
            part.result()
        return self.pixels

    def drop(self) -> None:
        """Forget a job nobody wants."""
        for part in self.parts:
            part.cancel()


class Decoder:
    """Threads that turn rows of a source into pixels (Pillow frees the interpreter lock while it decodes)."""

    def __init__(
        self, blobs: Blobs, grid: tuple[int, int, int], names: Sequence[str], *, threads: int | None = None
    ) -> None:
        self.blobs = blobs
        self.grid = grid
        self.names = names
        self._threads = threads or min(8, os.cpu_count() or 1)
        self._pool: ThreadPoolExecutor | None = None
        self._prepared = np.zeros(len(names), dtype=np.bool_)
        self._ahead: _Job | None = None
        self._lock = threading.Lock()

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        height, width, channels = self.grid
        return channels, height, width

    @property
    def image_bytes(self) -> int:
        """Bytes of one decoded image."""
        height, width, channels = self.grid
        return height * width * channels

    def prepare(self, rows: Rows) -> None:
        """Tell the source which rows will be asked for, where it does not know yet."""
        with self._lock:
            missing = rows[~self._prepared[rows]]
            if len(missing):
                self.blobs.prepare(missing)
                self._prepared[missing] = True

    def decode(self, rows: Rows) -> Pixels:
        """Return uint8 [len(rows), channels, height, width]; what was decoded ahead is not decoded again."""
        with self._lock:
            ahead, self._ahead = self._ahead, None
        if ahead is None:
            return self._start(rows).wait()
        known = len(ahead.rows)
        if known > len(rows) or not np.array_equal(ahead.rows, rows[:known]):
            ahead.drop()
            return self._start(rows).wait()
        if known == len(rows):
            return ahead.wait()
        rest = self._start(rows[known:])
        return np.concatenate([ahead.wait(), rest.wait()])

    def decode_ahead(self, rows: Rows) -> None:
        """Begin with rows that will be asked for next; a row that cannot be decoded is named when it is."""
        room = max(1, AHEAD_BYTES // self.image_bytes)
        if len(rows):
            job = self._start(rows[:room])
            with self._lock:
                self._ahead = job

    def wait(self) -> None:
        """Return when nothing is being decoded ahead any more."""
        with self._lock:
            ahead = self._ahead
        for part in ahead.parts if ahead is not None else ():
            part.exception()

    def _start(self, rows: Rows) -> _Job:
        pixels = np.empty((len(rows), *self.image_shape), dtype=np.uint8)
        if self._pool is None:
            self._pool = ThreadPoolExecutor(max_workers=self._threads, thread_name_prefix="hierbench-decode")
        starts = range(0, len(rows), TASK_IMAGES)
        parts = [self._pool.submit(self._fill, rows[s : s + TASK_IMAGES], pixels[s : s + TASK_IMAGES]) for s in starts]
        return _Job(rows, pixels, tuple(parts))

    def _fill(self, rows: Rows, pixels: Pixels) -> None:
        for place, row in enumerate(rows.tolist()):
            pixels[place] = self.blobs.decode(row, self.grid, where=self.names[row])


class LazyPixels:
    """Looks like uint8 [n, channels, height, width] under an index array, and decodes only what is indexed.

    Reading on from where the last read ended starts the next chunk in the background, so a model and the decoder
    work at the same time. Memory: one chunk, one chunk ahead (at most 128 MiB), and the encoded images if they are
    few.
    """

    def __init__(self, decoder: Decoder, rows: Rows) -> None:
        self.decoder = decoder
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Images, channels, height, width."""
        return (len(self.rows), *self.decoder.image_shape)

    @property
    def dtype(self) -> np.dtype[np.uint8]:
        """Always uint8."""
        return np.dtype(np.uint8)

    @property
    def nbytes(self) -> int:
        """Bytes of all pixels, were they decoded."""
        return len(self.rows) * self.decoder.image_bytes

    def __getitem__(self, indices: Rows) -> Pixels:
        """Return the pixels at an index array, decoded now."""
        places = np.asarray(indices, dtype=np.int64)
        if places.ndim != 1:
            raise InputError("lazily decoded pixels are indexed by a list of places")
        self.decoder.prepare(self.rows)
        pixels = self.decoder.decode(self.rows[places])
        if _runs_on(places):
            self.decoder.decode_ahead(self.rows[places[-1] + 1 : places[-1] + 1 + len(places)])
        return pixels

    def view(self, indices: Rows) -> LazyPixels:
        """Return some of the images, in that order, without decoding one."""
        return LazyPixels(self.decoder, self.rows[indices])

    def load(self) -> Pixels:
        """Return all pixels as one array."""
        self.decoder.prepare(self.rows)
        return self.decoder.decode(self.rows)


def _runs_on(places: Rows) -> bool:
    """Is this a chunk of a pass in order?"""
    return len(places) > 1 and bool((np.diff(places) == 1).all())
