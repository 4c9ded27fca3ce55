from __future__ import annotations

import base64
import io
import struct

import pytest
from PIL import Image

from stylemill.errors import NotAnImage
from stylemill.images.formats.sniff import READABLE, sniff
from stylemill.report.pictures import embed, palette, styles_sheet


def _decoded(picture):
    head, _, text = picture.data_uri.partition(",")
    assert head == "data:image/webp;base64"
    return Image.open(io.BytesIO(base64.b64decode(text)))


def test_a_large_picture_is_scaled_and_keeps_its_shape(encoded):
    picture = embed(encoded((1600, 800), image_format="JPEG"), alt="a", max_side_px=320)
    assert (picture.width_px, picture.height_px) == (320, 160)
    assert _decoded(picture).size == (320, 160)


def test_a_small_picture_keeps_its_size(encoded):
    assert _decoded(embed(encoded((33, 17)), alt="a")).size == (33, 17)


def test_orientation_is_obeyed(encoded):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = embed(encoded((200, 100), image_format="JPEG", exif=exif.tobytes()), alt="a")
    assert (picture.width_px, picture.height_px) == (100, 200)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_every_mode_becomes_rgb(encoded, mode):
    assert _decoded(embed(encoded(mode=mode), alt="a")).mode == "RGB"


def test_transparent_is_white():
    buffer = io.BytesIO()
    Image.new("RGBA", (4, 4), (200, 0, 0, 0)).save(buffer, "PNG")
    assert min(_decoded(embed(buffer.getvalue(), alt="a")).getpixel((1, 1))) > 250


def test_what_is_no_picture_is_an_error():
    with pytest.raises(NotAnImage):
        embed(b"<html>", alt="a")


def test_palette_finds_the_colours_dark_to_light():
    image = Image.new("RGB", (90, 30), (10, 20, 120))
    image.paste((250, 240, 200), (30, 0, 60, 30))
    image.paste((180, 30, 20), (60, 0, 90, 30))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    assert palette(buffer.getvalue(), num_colours=3) == ("#0a1478", "#b41e14", "#faf0c8")


def _plain(colour, size=(120, 80)):
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, format="PNG")
    return buffer.getvalue()


def test_photographs_above_and_a_row_for_each_style():
    photos = [_plain("red"), _plain("yellow")]
    rows = [(_plain("blue"), [_plain("lime"), _plain("black", (10, 300))]), (_plain("aqua"), [_plain("gray")] * 2)]
    sheet = Image.open(io.BytesIO(styles_sheet(photos, rows, cell_px=100)))
    assert sheet.format == "JPEG"
    assert sheet.size == (316, 316)
    expected = {
        (50, 50): (255, 255, 255), (158, 50): (255, 0, 0), (266, 50): (255, 255, 0),
        (50, 158): (0, 0, 255), (158, 158): (0, 255, 0), (266, 158): (0, 0, 0),
        (50, 266): (0, 255, 255), (158, 266): (128, 128, 128), (104, 104): (255, 255, 255),
    }  # fmt: skip
    for place, colour in expected.items():
        assert sheet.getpixel(place) == pytest.approx(colour, abs=12), place


@pytest.mark.parametrize("photos", [0, 2])
def test_a_sheet_without_photographs_or_with_missing_paintings_is_refused(photos):
    with pytest.raises(ValueError, match="one painting of each"):
        styles_sheet([_plain("red")] * photos, [(_plain("blue"), [_plain("red")])])


FORMATS = (
    "AVIF",
    "BMP",
    "DDS",
    "GIF",
    "HEIF",
    "ICNS",
    "ICO",
    "JPEG",
    "JPEG2000",
    "PCX",
    "PNG",
    "PPM",
    "QOI",
    "SGI",
    "TGA",
)
FORMATS += ("TIFF", "WEBP", "XBM", "PSD", "SUN", "XPM")
"""Of what is painted; browsers show a few of them."""


def _file(image_format):
    image = Image.new("1" if image_format == "XBM" else "RGB", (64, 64), "white")
    buffer = io.BytesIO()
    if image_format == "HEIF":
        pytest.importorskip(
            "pillow_heif", reason="needs the extra: pip install 'stylemill[heif]'"
        ).register_heif_opener()
    if image_format == "PSD":
        return b"8BPS" + struct.pack(">H6xHIIHH", 1, 3, 64, 64, 8, 3) + bytes(14) + b"\xff" * (3 * 64 * 64)
    if image_format == "SUN":
        return struct.pack(">8I", 0x59A66A95, 64, 64, 24, 3 * 64 * 64, 1, 0, 0) + b"\xff" * (3 * 64 * 64)
    if image_format == "XPM":
        rows = ",\n".join(['"64 64 1 1"', '"x c #ffffff"', *[f'"{"x" * 64}"'] * 64])
        return f"/* XPM */\nstatic char *a[] = {{\n{rows}\n}};\n".encode()
    image.save(buffer, image_format)
    return buffer.getvalue()


@pytest.mark.parametrize("image_format", FORMATS)
def test_every_format_that_is_painted_is_shown_as_one_that_browsers_know(image_format):
    shown = _decoded(embed(_file(image_format), alt="a", max_side_px=32))
    assert (shown.format, shown.size) == ("WEBP", (32, 32))
    assert min(shown.convert("RGB").getpixel((16, 16))) > 250


def test_the_formats_above_are_those_that_are_read():
    drawn = {sniff(_file(image_format)) for image_format in FORMATS if image_format != "HEIF"} | {"heif"}
    assert READABLE - drawn <= {"cur"}, "a cursor is an icon with another number in its header"
