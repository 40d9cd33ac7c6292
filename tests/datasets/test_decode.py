"""Image bytes of every kind that data sets hold become 8-bit pixels, or are refused by name."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from hierbench.datasets.decode import decode_image
from hierbench.errors import InputError


def encoded(image: Image.Image, kind: str = "PNG", **how: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **how)
    return stream.getvalue()


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "LA", "1"])
def test_image_modes_become_rgb(mode: str) -> None:
    image = Image.new("RGB", (40, 32), (200, 200, 200)).convert(mode)
    pixels = decode_image(encoded(image, "TIFF" if mode == "CMYK" else "PNG"), (32, 32, 3), where="x")
    assert pixels.shape == (3, 32, 32)
    assert abs(int(pixels.mean()) - (255 if mode == "1" else 200)) <= 60


def test_cmyk_photographs_keep_their_colour() -> None:
    image = Image.new("RGB", (32, 32), (250, 40, 10)).convert("CMYK")
    pixels = decode_image(encoded(image, "JPEG", quality=95), (32, 32, 3), where="x")
    assert np.abs(pixels.mean(axis=(1, 2)) - [250, 40, 10]).max() < 12


def test_transparent_pixels_are_white_and_others_keep_their_colour() -> None:
    image = Image.new("RGBA", (32, 32), (10, 20, 30, 0))
    image.paste((10, 20, 30, 255), (0, 0, 16, 32))
    pixels = decode_image(encoded(image), (32, 32, 3), where="x")
    assert (pixels[:, :, :16].reshape(3, -1).T == [10, 20, 30]).all() and (pixels[:, :, 16:] == 255).all()
    palette = image.convert("P")
    palette.info["transparency"] = palette.getpixel((20, 0))
    stored = decode_image(encoded(palette, transparency=palette.getpixel((20, 0))), (32, 32, 3), where="x")
    assert (stored[:, 0, 31] == 255).all() and (stored[:, 0, 0] != 255).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_are_scaled_not_clipped(channels: int) -> None:
    values = np.linspace(0, 65535, 32 * 32).reshape(32, 32).astype(np.uint16)
    pixels = decode_image(encoded(Image.fromarray(values)), (32, 32, channels), where="x")
    assert (pixels[0] == np.rint(values / 257.0)).all() and pixels[0, -1, -1] == 255
    assert (pixels == pixels[0]).all()


def test_floating_point_pixels_are_refused() -> None:
    image = Image.fromarray(np.zeros((32, 32), dtype=np.float32))
    with pytest.raises(InputError, match="row 7: floating-point pixels"):
        decode_image(encoded(image, "TIFF"), (32, 32, 3), where="row 7")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(orientation: int) -> None:
    random = np.random.default_rng(0)
    image = Image.fromarray(random.integers(0, 256, (32, 32, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(image, exif=exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    expected = np.asarray(upright).transpose(2, 0, 1)
    assert (decode_image(data, (32, 32, 3), where="x") == expected).all()
    if orientation == 3:
        assert (expected == np.asarray(image)[::-1, ::-1].transpose(2, 0, 1)).all()


@given(st.integers(20, 70), st.integers(20, 70), st.sampled_from([24, 32]))
@settings(max_examples=25, deadline=None)
def test_another_size_is_cropped_in_the_middle(width: int, height: int, side: int) -> None:
    ramp = np.zeros((height, width, 3), dtype=np.uint8)
    ramp[..., 0] = np.linspace(0, 255, width)[None, :]
    ramp[..., 1] = np.linspace(0, 255, height)[:, None]
    pixels = decode_image(encoded(Image.fromarray(ramp)), (side, side, 3), where="x").astype(int)
    assert pixels.shape == (3, side, side)
    # symmetric about the middle, whichever side was cropped
    assert np.abs(pixels[0].mean(axis=0) + pixels[0].mean(axis=0)[::-1] - 255).max() <= 3
    assert np.abs(pixels[1].mean(axis=1) + pixels[1].mean(axis=1)[::-1] - 255).max() <= 3
    shares = (height / max(width, height), width / max(width, height))
    for channel, share in enumerate((min(1.0, shares[0]), min(1.0, shares[1]))):
        visible = pixels[channel].max() - pixels[channel].min()
        assert abs(visible - 255 * share) <= 8 + 255 * 1.5 / min(width, height)


def test_a_jpeg_is_decoded_whole_before_it_is_resized() -> None:
    random = np.random.default_rng(0)
    image = Image.fromarray(random.integers(0, 256, (512, 512, 3), dtype=np.uint8))
    data = encoded(image, "JPEG")
    full = ImageOps.fit(Image.open(io.BytesIO(data)).convert("RGB"), (64, 64), method=Image.Resampling.BICUBIC)
    assert (decode_image(data, (64, 64, 3), where="x") == np.asarray(full).transpose(2, 0, 1)).all()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("kept", [0.03, 0.5, 0.97])
def test_a_truncated_image_is_refused(kind: str, kept: float) -> None:
    random = np.random.default_rng(0)
    data = encoded(Image.fromarray(random.integers(0, 256, (64, 64, 3), dtype=np.uint8)), kind)
    with pytest.raises(InputError, match="row 3: not a readable image") as caught:
        decode_image(data[: int(len(data) * kept)], (32, 32, 3), where="row 3")
    assert "\n" not in str(caught.value) and "0x" not in str(caught.value)


def test_an_oversized_image_is_refused_before_it_is_decoded() -> None:
    data = encoded(Image.new("1", (20_000, 20_000)))
    with pytest.raises(InputError, match=r"row 3: .*(pixels|bomb)"):
        decode_image(data, (32, 32, 3), where="row 3")
    with pytest.raises(InputError, match="row 3: 9000 x 9000 pixels"):
        decode_image(encoded(Image.new("1", (9_000, 9_000))), (32, 32, 3), where="row 3")
