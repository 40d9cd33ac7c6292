"""Which images of a class a multimodal model sees, and the PNG files they are sent as."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hierbench.datasets.images import ImageSet
from hierbench.errors import InputError

SMALLEST_GRID = 16
"""Images with a shorter side below this, such as the digits, are enlarged: models take them for noise, or refuse."""
ENLARGED_SIDE = 64
"""The shorter side of an enlarged image is at least this."""


@dataclass(frozen=True)
class Picture:
    """An image as it is sent: a PNG file of ``width`` x ``height`` pixels, each of the data set's ``factor`` wide."""

    png: bytes
    width: int
    height: int
    factor: int

    @property
    def data_url(self) -> str:
        """The file as a ``data:`` URL."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode("ascii")


def enlargement(height: int, width: int) -> int:
    """Return by which whole factor images are enlarged, to the nearest pixel: 1 from 16 pixels on.

    >>> enlargement(8, 8), enlargement(32, 32)
    (8, 1)
    """
    shorter = min(height, width)
    return 1 if shorter >= SMALLEST_GRID else -(-ENLARGED_SIDE // shorter)


def make_picture(pixels: npt.NDArray[np.uint8]) -> Picture:
    """Return an image, uint8 [channels, height, width], as a PNG; one channel is grey, three are RGB."""
    from PIL import Image

    channels, height, width = pixels.shape
    factor = enlargement(height, width)
    large = pixels.repeat(factor, axis=1).repeat(factor, axis=2)
    image = Image.fromarray(large[0] if channels == 1 else np.ascontiguousarray(large.transpose(1, 2, 0)))
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return Picture(stream.getvalue(), width * factor, height * factor, factor)


class ClassPictures:
    """The same ``count`` images of a class whenever it is asked about: those first in an order hashed from the seed.

    A class of ``labels`` with fewer is an ``InputError`` that names it.
    """

    def __init__(self, images: ImageSet, labels: Iterable[int], count: int, *, seed: int) -> None:
        self.images = images
        self._chosen: dict[int, npt.NDArray[np.int64]] = {}
        for label in labels:
            places = np.flatnonzero(images.labels == label)
            if len(places) < count:
                raise InputError(
                    f"--images: class {images.spec.class_ids[label]!r} has {len(places)} images in {images.split} "
                    f"of {images.spec.name}, and {count} are asked for"
                )
            order = sorted(places.tolist(), key=lambda place: _draw(seed, images.ids[place]))
            self._chosen[label] = np.array(order[:count], dtype=np.int64)

    def of(self, label: int) -> list[Picture]:
        """Return the pictures of a class."""
        return [make_picture(pixels) for pixels in self.images.array[self._chosen[label]]]


def _draw(seed: int, sample: str) -> bytes:
    return hashlib.blake2b(f"describe|{seed}|{sample}".encode(), digest_size=16).digest()
