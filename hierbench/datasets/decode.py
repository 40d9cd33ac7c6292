"""Image bytes to pixels on a grid."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from hierbench.errors import InputError

MAX_PIXELS = 64_000_000
"""An image larger than this is refused before it is decoded: it is a mistake or a decompression bomb."""


def decode_image(data: bytes, grid: tuple[int, int, int], *, where: str) -> npt.NDArray[np.uint8]:
    """Return uint8 [channels, height, width].

    A photo of another size is resized on its shorter side (bicubic) and cropped in the middle. Grey,
    palette, alpha and CMYK images become RGB (alpha over white); EXIF rotation is applied.
    Raises ``InputError`` naming ``where`` for bytes that are no whole image.
    """
    height, width, channels = grid
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise InputError(f"{where}: {image.width} x {image.height} pixels; at most {MAX_PIXELS} are decoded")
            image.load()
            upright = ImageOps.exif_transpose(image)
            pixels = _to_mode(upright, "L" if channels == 1 else "RGB")
            if pixels.size != (width, height):
                pixels = ImageOps.fit(pixels, (width, height), method=Image.Resampling.BICUBIC)
            array = np.asarray(pixels, dtype=np.uint8)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{where}: not a readable image ({error})") from None
    return array[None] if channels == 1 else np.ascontiguousarray(array.transpose(2, 0, 1))


def _to_mode(image: Image.Image, mode: str) -> Image.Image:
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        ground = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        image = Image.alpha_composite(ground, rgba)
    return image if image.mode == mode else image.convert(mode)


def decode_all(
    blobs: Iterable[bytes], count: int, grid: tuple[int, int, int], *, names: Sequence[str]
) -> npt.NDArray[np.uint8]:
    """Decode ``count`` images into uint8 [count, channels, height, width], in threads (Pillow frees the lock)."""
    height, width, channels = grid
    pixels = np.empty((count, channels, height, width), dtype=np.uint8)

    def work(item: tuple[int, bytes]) -> None:
        index, data = item
        pixels[index] = decode_image(data, grid, where=names[index])

    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        for _ in pool.map(work, enumerate(blobs)):
            pass
    return pixels
