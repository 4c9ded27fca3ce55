from __future__ import annotations

import struct
import zlib

import pytest
from PIL import Image

from stylemill.errors import ImageError
from stylemill.images.decode import decode
from stylemill.images.failures import classify
from stylemill.images.options import DecodeOptions
from tests.unit.images.drawn import picture, save
from tests.unit.images.stated import png_chunk


def old_icon() -> bytes:
    """An icon of two colours, as programs of the 1990s have it: no plugin reads these."""
    block = b"ICN#" + struct.pack(">I", 264) + bytes(256)
    return b"icns" + struct.pack(">I", 8 + len(block)) + block


def pcx(bits: int, planes: int) -> bytes:
    data = bytearray(save(picture("L"), "PCX"))
    data[3], data[65] = bits, planes
    return bytes(data)


def filtered_as_mng() -> bytes:
    header = struct.pack(">IIBBBBB", 2, 2, 8, 2, 0, 64, 0)
    body = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(14))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in body)


def spectral_tiff(num_bands: int) -> bytes:
    """A TIFF of 2 x 2 px with as many samples in each."""
    short, long = 3, 4
    entries = [(256, short, 1, 2), (257, short, 1, 2), (258, short, num_bands, 0), (259, short, 1, 1)]
    entries += [(262, short, 1, 1), (273, long, 1, 0), (277, short, 1, num_bands), (278, short, 1, 2)]
    entries += [(279, long, 1, 4 * num_bands), (338, short, num_bands - 1, 0)]
    behind = 8 + 2 + 12 * len(entries) + 4
    places = {258: behind, 338: behind + 2 * num_bands, 273: behind + 4 * num_bands - 2}
    directory = b"".join(
        struct.pack("<HHII" if tag in places or kind == long else "<HHIHxx", tag, kind, count, places.get(tag, value))
        for tag, kind, count, value in entries
    )
    values = struct.pack("<H", 8) * num_bands + bytes(2 * (num_bands - 1))
    start = b"II*\0" + struct.pack("<IH", 8, len(entries))
    return start + directory + bytes(4) + values + bytes(range(4 * num_bands))


@pytest.mark.parametrize(
    "data",
    [old_icon(), pcx(4, 2), pcx(2, 1), filtered_as_mng(), spectral_tiff(7), spectral_tiff(12)],
    ids=["icns", "pcx 4 bits 2 planes", "pcx 2 bits", "png of mng", "tiff of 7 bands", "tiff of 12 bands"],
)
def test_sound_files_that_no_plugin_reads_are_not_called_damaged(data: bytes) -> None:
    with pytest.raises(ImageError) as refused:
        decode(data, DecodeOptions())
    assert refused.value.error_type == "UnsupportedFormat"


def test_a_few_bands_are_read() -> None:
    assert decode(spectral_tiff(5), DecodeOptions()).image_HWC.shape == (2, 2, 3)


@pytest.mark.parametrize(
    ("error", "image_format", "expected"),
    [
        (SyntaxError("unable to determine J2K image mode"), "jpeg2000", "UnsupportedFormat"),
        (SyntaxError("Windows Media Photo files not yet supported"), "tiff", "UnsupportedFormat"),
        (OSError("unknown TGA mode"), "tga", "UnsupportedFormat"),
        (ValueError("unknown raw mode for given image mode"), "bmp", "UnsupportedFormat"),
        (NotImplementedError("anything"), "dds", "UnsupportedFormat"),
        (OSError("image file is truncated (3 bytes not processed)"), "gif", "Truncated"),
        (EOFError(), "gif", "Truncated"),
        (SyntaxError("not a GIF file"), "gif", "Corrupt"),
        (SyntaxError("broken XPM file"), "xpm", "Corrupt"),
        (TypeError("not supported between instances"), "psd", "Corrupt"),
        (Image.DecompressionBombError("too many"), "ico", "TooManyPixels"),
    ],
)
def test_what_a_plugin_raises_has_a_type(error: Exception, image_format: str, expected: str) -> None:
    found = classify(error, b"\0" * 40 + b"\xff\xd9", image_format)
    assert found.error_type == expected
    assert "\n" not in found.message
