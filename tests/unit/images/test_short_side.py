"""Images with a shorter side of a given length: upright, in sRGB, transparent parts white."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from stylemill.errors import ImageError
from stylemill.images.decode import decode
from stylemill.images.formats.alpha16 import write_png16
from stylemill.images.isolation.client import IsolatedDecoder
from stylemill.images.options import DecodeOptions
from stylemill.images.short_side import decode_short_side
from tests.drawn import image_bytes, wide_gamut_profile


def load_short_side(data: bytes, short_side_px: int) -> np.ndarray:
    return decode_short_side(data, short_side_px, DecodeOptions()).image_HWC


def test_the_child_process_gives_the_same_pixels():
    with IsolatedDecoder(DecodeOptions(), 48) as decoder:
        for format in ("JPEG", "PNG", "WEBP"):
            data = image_bytes(200, 130, format=format)
            found = decoder.decode(data)
            np.testing.assert_array_equal(found.image_HWC, load_short_side(data, 48))
            assert found.source_format == format.lower()
        with pytest.raises(ImageError):
            decoder.decode(image_bytes(200, 200)[:500])


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("size_px", [(400, 300), (300, 400), (20, 31), (48, 48)])
def test_the_shorter_side_gets_the_wanted_length(format, size_px):
    image_HWC = load_short_side(image_bytes(*size_px, format=format), 48)
    assert min(image_HWC.shape[:2]) == 48
    assert max(image_HWC.shape[:2]) == pytest.approx(48 * max(size_px) / min(size_px), abs=1)
    assert image_HWC.dtype == np.uint8


def test_scaled_decoding_gives_nearly_the_same_picture():
    y, x = np.mgrid[0:800, 0:1000]
    smooth = np.stack([128 + 100 * np.sin(x / 90), 128 + 100 * np.cos(y / 70), (x + y) / 8], axis=2).astype(np.uint8)
    buffers = io.BytesIO(), io.BytesIO()
    Image.fromarray(smooth).save(buffers[0], "JPEG", quality=95)
    Image.fromarray(smooth).save(buffers[1], "PNG")
    scaled, plain = (load_short_side(buffer.getvalue(), 96).astype(int) for buffer in buffers)
    assert np.abs(scaled - plain).mean() < 3


def test_orientation_is_applied():
    image = Image.open(io.BytesIO(image_bytes(60, 100)))
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", exif=exif)
    assert load_short_side(buffer.getvalue(), 60).shape == (100, 60, 3)


def encoded(image: Image.Image, format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("size_px", [(2, 4000), (4000, 2)])
def test_a_very_long_image_is_cropped_to_its_middle(size_px):
    """Uncropped, it would take a gigabyte at 384 px."""
    line_HWC = np.full((*size_px, 3), 255, np.uint8)
    middle = np.s_[:, 1990:2010] if size_px[0] == 2 else np.s_[1990:2010]
    line_HWC[middle] = (200, 0, 0)
    image_HWC = load_short_side(encoded(Image.fromarray(line_HWC), "PNG"), 48)
    assert sorted(image_HWC.shape[:2]) == [48, 8 * 48]
    assert abs(image_HWC.astype(int) - (200, 0, 0)).max() <= 1


def test_transparent_pixels_become_white():
    see_through = Image.new("RGBA", (60, 60), (10, 20, 30, 0))
    see_through.paste((200, 100, 0, 128), (0, 0, 60, 30))
    image_HWC = load_short_side(encoded(see_through, "PNG"), 60).astype(int)
    assert abs(image_HWC[:25] - (227, 177, 127)).max() <= 1
    assert (image_HWC[35:] == 255).all()
    grey = Image.new("LA", (60, 60), (0, 0))
    assert (load_short_side(encoded(grey, "PNG"), 60) == 255).all()


def test_sixteen_bits_are_scaled():
    ramp = np.linspace(0, 65535, 64).astype(np.uint16)
    image_HWC = load_short_side(encoded(Image.fromarray(np.tile(ramp, (64, 1))), "PNG"), 64).astype(int)
    assert abs(image_HWC[0, :, 0] - ramp / 257).max() <= 1


def test_colours_are_those_of_the_bulk_flow_s_decoder():
    """Other primaries, and inks that are not Adobe's."""
    for image, options in [
        (Image.new("RGB", (64, 64), (200, 60, 20)), {"icc_profile": wide_gamut_profile(), "quality": 100}),
        (Image.new("CMYK", (64, 64), (200, 30, 10, 5)), {"quality": 100}),
    ]:
        data = encoded(image, "JPEG", **options)
        wanted_HWC = decode(data, DecodeOptions()).image_HWC.astype(int)
        assert abs(load_short_side(data, 64).astype(int) - wanted_HWC).max() <= 1


@pytest.mark.parametrize("data", [b"", b"text", image_bytes(200, 200)[:500], image_bytes(50, 50, format="PNG")[:-60]])
def test_undecodable_data_raises_an_image_error(data):
    with pytest.raises(ImageError):
        load_short_side(data, 48)


def test_pixels_with_16_bits_of_transparency_become_white():
    half_HW = np.full((40, 50), 0x80FF, np.uint16)  # not a value that 8 bits can hold
    data = write_png16(np.zeros((40, 50, 3), np.uint8), half_HW, [])
    assert (load_short_side(data, 40) == 255 - 0x80).all()
