"""Image bytes to pixels on a grid."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from hierbench.errors import InputError

MAX_PIXELS = 64_000_000
"""An image larger than this is refused before it is decoded: it is a mistake or a decompression bomb."""

ORIENTATION = 0x0112
"""EXIF tag: which way up the camera was held; 1 is upright."""


def decode_image(data: bytes, grid: tuple[int, int, int], *, where: str) -> npt.NDArray[np.uint8]:
    """Return uint8 [channels, height, width].

    A photo of another size is resized on its shorter side (bicubic) and cropped in the middle. Grey, 16-bit,
    palette, alpha and CMYK images become RGB (alpha over white); EXIF rotation is applied. Every pixel of the file
    is decoded: a JPEG is never read at a reduced scale, which would change the pixels an attack starts from.
    Raises ``InputError`` naming ``where`` for bytes that are no whole image, or one of over 64 million pixels.
    """
    height, width, channels = grid
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise InputError(f"{where}: {image.width} x {image.height} pixels; at most {MAX_PIXELS} are decoded")
            image.load()
            upright: Image.Image = image
            if image.getexif().get(ORIENTATION, 1) != 1:
                upright = ImageOps.exif_transpose(image)
            pixels = _to_mode(upright, "L" if channels == 1 else "RGB", where)
            if pixels.size != (width, height):
                pixels = ImageOps.fit(pixels, (width, height), method=Image.Resampling.BICUBIC)
            array = np.asarray(pixels, dtype=np.uint8)
    except UnidentifiedImageError:
        raise InputError(f"{where}: not a readable image ({len(data)} bytes of no known format)") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{where}: not a readable image ({_one_line(error)})") from None
    return array[None] if channels == 1 else np.ascontiguousarray(array.transpose(2, 0, 1))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _to_mode(image: Image.Image, mode: str, where: str) -> Image.Image:
    if image.mode == "I" or image.mode.startswith("I;16"):
        image = _eight_bit(image, where)
    elif image.mode == "F":
        raise InputError(f"{where}: floating-point pixels have no agreed range; store 8 or 16 bits a channel")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        ground = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        image = Image.alpha_composite(ground, rgba)
    return image if image.mode == mode else image.convert(mode)


def _eight_bit(image: Image.Image, where: str) -> Image.Image:
    """Pillow clips 16-bit grey at 255 when it converts; the full range belongs onto 0 to 255."""
    values = np.asarray(image).astype(np.int64)
    if values.min(initial=0) < 0 or values.max(initial=0) > 65535:
        raise InputError(f"{where}: grey values outside 16 bits ({values.min()} to {values.max()})")
    return Image.fromarray(np.rint(values / 257.0).astype(np.uint8))
