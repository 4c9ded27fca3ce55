from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from stylemill.errors import ImageError
from stylemill.images.decode import decode
from stylemill.images.options import DecodeOptions

OPTIONS = DecodeOptions()
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "webp": ("WEBP", {"quality": 85}),
    "webp-low": ("WEBP", {"quality": 10}),
    "webp-lossless": ("WEBP", {"lossless": True}),
    "webp-lossless-fast": ("WEBP", {"lossless": True, "method": 0}),
    "avif": ("AVIF", {"quality": 75, "speed": 9}),
    "jpeg2000": ("JPEG2000", {}),
    "jpeg2000-layers": ("JPEG2000", {"irreversible": True, "quality_layers": [80, 40, 10]}),
    "tiff-lzw": ("TIFF", {"compression": "tiff_lzw"}),
    "tiff-deflate": ("TIFF", {"compression": "tiff_adobe_deflate"}),
    "tiff-jpeg": ("TIFF", {"compression": "jpeg"}),
}
if "HEIF" in Image.registered_extensions().values():
    KINDS["heif"] = ("HEIF", {"quality": 75})


def photo(size: int = 360) -> Image.Image:
    rng = np.random.default_rng(3)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)).resize((size, size), Image.BICUBIC)
    noise = rng.normal(0, 12, (size, size, 3))
    return Image.fromarray(np.clip(np.asarray(coarse) + noise, 0, 255).astype(np.uint8))


def encoded(image: Image.Image, kind: str) -> bytes:
    container, options = KINDS[kind]
    buffer = io.BytesIO()
    image.save(buffer, container, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", KINDS)
def test_a_tail_of_zeros_is_noticed(kind: str) -> None:
    data = encoded(photo(), kind)
    # Pillow writes the directory of a TIFF in front of the pixels or behind them; the payload is in the middle.
    for part in (0.3, 0.6, 0.9):
        kept = int(len(data) * part)
        with pytest.raises(ImageError) as refused:
            decode(data[:kept] + bytes(len(data) - kept), OPTIONS)
        assert refused.value.error_type in ("Corrupt", "Truncated")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [512, 2048])
def test_a_block_of_zeros_is_noticed(kind: str, size: int) -> None:
    data = encoded(photo(), kind)
    if len(data) < 3 * size:
        size = len(data) // 3
    for part in (0.3, 0.55, 0.8):
        at = int((len(data) - size) * part)
        with pytest.raises(ImageError) as refused:
            decode(data[:at] + bytes(size) + data[at + size :], OPTIONS)
        assert refused.value.error_type in ("Corrupt", "Truncated")


def even_pictures() -> dict[str, Image.Image]:
    page = Image.new("RGB", (1240, 1754), "white")
    draw = ImageDraw.Draw(page)
    for row in range(20):
        draw.text((80, 80 + row * 30), "a line of text on a white page " * 3, fill="black")
    product = Image.new("RGB", (1600, 1600), "white")
    product.paste(photo(), (600, 600))
    gradient = np.zeros((900, 1400, 3), np.uint8)
    gradient[...] = np.linspace(0, 255, 1400)[None, :, None]
    rows, columns = np.mgrid[0:800, 0:1200]
    checks = np.where(((rows // 8 + columns // 8) % 2 == 1)[..., None], 255, 0).astype(np.uint8).repeat(3, axis=2)
    return {
        "white": Image.new("RGB", (2000, 1500), "white"),
        "black": Image.new("RGB", (1600, 1200)),
        "one colour": Image.new("RGB", (1600, 1200), (3, 200, 90)),
        "page": page,
        "photo on white": product,
        "gradient": Image.fromarray(gradient),
        "checks": Image.fromarray(checks),
    }


@pytest.mark.parametrize("kind", KINDS)
def test_even_pictures_are_sound(kind: str) -> None:
    for name, image in even_pictures().items():
        assert decode(encoded(image, kind), OPTIONS).image_HWC.shape == (image.height, image.width, 3), name


def test_a_deflated_tile_that_is_mostly_empty_is_sound() -> None:
    """A small picture in a large tile: the rest of the tile is one run of zeros, and so is its compressed data."""
    pixels = np.zeros((4000, 4000), np.uint8)
    pixels[:40, :40] = np.asarray(photo(40).convert("L"))
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "TIFF", compression="tiff_adobe_deflate", tiffinfo={278: 4000})
    assert bytes(64) in buffer.getvalue()[200:]
    assert (decode(buffer.getvalue(), OPTIONS).image_HWC[..., 0] == pixels).all()


def test_stored_alpha_and_metadata_may_contain_zeros() -> None:
    image = photo()
    image.putalpha(Image.new("L", image.size, 0))
    exif = Image.Exif()
    exif[0x9286] = bytes(3000)  # a user comment that cameras fill up with zeros
    for container, options in (("WEBP", {"quality": 80, "alpha_quality": 100}), ("AVIF", {"quality": 70, "speed": 9})):
        buffer = io.BytesIO()
        image.save(buffer, container, exif=exif, **options)
        assert bytes(2000) in buffer.getvalue()
        assert decode(buffer.getvalue(), OPTIONS).image_HWC.shape == (360, 360, 3)


def test_alpha_that_is_coded_in_zeros_is_sound() -> None:
    cut_out = photo()
    alpha = Image.new("L", cut_out.size, 0)
    alpha.paste(255, (100, 100, 260, 260))
    cut_out.putalpha(alpha)
    for method in (0, 4, 6):
        for lossless in (False, True):
            buffer = io.BytesIO()
            cut_out.save(buffer, "WEBP", method=method, lossless=lossless)
            assert decode(buffer.getvalue(), OPTIONS).alpha_HW is not None


@pytest.mark.parametrize("animation", ["first", "all"])
def test_each_frame_of_an_animation_is_compared_with_its_own_data(animation: Any) -> None:
    flat = Image.new("RGB", (1600, 1200), "white")
    detailed = photo(1600).crop((0, 0, 1600, 1200))
    for frames in ([detailed, flat], [flat, detailed]):
        buffer = io.BytesIO()
        frames[0].save(buffer, "WEBP", save_all=True, append_images=frames[1:], quality=60)
        assert decode(buffer.getvalue(), DecodeOptions(animation=animation)).width_px == 1600
    data = buffer.getvalue()
    at = data.rindex(b"VP8 ") + (len(data) - data.rindex(b"VP8 ")) // 2
    hole = data[:at] + bytes(900) + data[at + 900 :]
    if animation == "all":
        with pytest.raises(ImageError):
            decode(hole, DecodeOptions(animation="all"))
    else:
        assert decode(hole, OPTIONS).width_px == 1600


def test_boxes_behind_the_codestream_may_contain_zeros() -> None:
    data = encoded(photo(), "jpeg2000")
    at = data.index(b"jp2c") - 4
    sized = data[:at] + (len(data) - at).to_bytes(4, "big") + data[at + 4 :]
    box = (3008).to_bytes(4, "big") + b"uuid" + bytes(3000)
    assert decode(sized + box, OPTIONS).image_HWC.shape == (360, 360, 3)


@pytest.mark.parametrize("compression", ["zstd", "lzma"])
def test_short_gaps_between_noise_are_sound(compression: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (256, 1024), dtype=np.uint8)
    for row in range(0, 256, 5):
        pixels[row, 100:300] = 0
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "TIFF", compression=compression)
    assert (decode(buffer.getvalue(), OPTIONS).image_HWC[..., 0] == pixels).all()


def test_zeros_behind_the_end_of_the_file_are_harmless() -> None:
    for kind in ("webp", "avif", "tiff-lzw", "jpeg2000"):
        data = encoded(photo(), kind)
        assert decode(data + bytes(5000), OPTIONS).image_HWC.shape == (360, 360, 3)
