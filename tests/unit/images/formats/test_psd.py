from __future__ import annotations

import struct

import numpy as np
import pytest

from stylemill.errors import ImageError
from stylemill.images.decode import decode
from stylemill.images.formats.psd import check_psd
from stylemill.images.options import DecodeOptions

OPTIONS = DecodeOptions()
BITMAP, GRAY, RGB, CMYK, MULTICHANNEL = 0, 1, 3, 4, 7
SAMPLES = np.random.default_rng(0).integers(0, 256, (4, 12, 16), dtype=np.uint8)


def psd(mode: int, bits: int, channels: int, pixels: bytes, *, version: int = 1, resources: bytes = b"") -> bytes:
    """Write a document without layers, and with an uncompressed merged picture of 16 x 12 px."""
    header = struct.pack(">4sH6xHIIHH", b"8BPS", version, channels, 12, 16, bits, mode)
    sections = struct.pack(">I", 0) + struct.pack(">I", len(resources)) + resources + struct.pack(">I", 0)
    return header + sections + struct.pack(">H", 0) + pixels


def resource(number: int, content: bytes, name: bytes = b"") -> bytes:
    named = bytes([len(name)]) + name
    return (
        b"8BIM"
        + struct.pack(">H", number)
        + named.ljust(-(-len(named) // 2) * 2, b"\0")
        + struct.pack(">I", len(content))
        + content.ljust(-(-len(content) // 2) * 2, b"\0")
    )


def version_info(has_merged_picture: bool) -> bytes:
    return resource(1005, bytes(16), b"odd") + resource(1057, struct.pack(">I?II", 1, has_merged_picture, 0, 0) + b"\1")


def refused(data: bytes) -> str:
    with pytest.raises(ImageError) as error:
        decode(data, OPTIONS)
    assert error.value.error_type == "UnsupportedFormat"
    return error.value.message


def test_the_merged_picture_is_read() -> None:
    source = decode(psd(RGB, 8, 3, SAMPLES[:3].tobytes(), resources=version_info(True)), OPTIONS)
    assert (source.image_HWC == np.moveaxis(SAMPLES[:3], 0, 2)).all()


def test_a_bitmap_has_one_for_black() -> None:
    black_HW = SAMPLES[0] > 127
    source = decode(psd(BITMAP, 1, 1, np.packbits(black_HW, axis=1).tobytes()), OPTIONS)
    assert (source.image_HWC[..., 0] == np.where(black_HW, 0, 255)).all()


@pytest.mark.parametrize("bits", [16, 32])
@pytest.mark.parametrize(("mode", "channels"), [(GRAY, 1), (RGB, 3), (CMYK, 4)])
def test_deep_documents_are_named(mode: int, channels: int, bits: int) -> None:
    pixels = SAMPLES[:channels].tobytes() * (bits // 8)
    assert f"{bits} bits" in refused(psd(mode, bits, channels, pixels))


def test_documents_without_a_merged_picture_are_named() -> None:
    data = psd(RGB, 8, 3, SAMPLES[:3].tobytes(), resources=version_info(False))
    assert "Maximize Compatibility" in refused(data)


def test_other_kinds_of_documents_are_named() -> None:
    assert "multichannel" in refused(psd(MULTICHANNEL, 8, 3, SAMPLES[:3].tobytes()))
    assert "PSB" in refused(psd(RGB, 8, 3, SAMPLES[:3].tobytes(), version=2))


def test_damaged_resources_are_passed_over() -> None:
    for junk in (b"8BIM", b"8BIM\x04\x21\x00\x00\xff\xff\xff\xff", b"junk" * 5, resource(1057, b"\0")):
        check_psd(psd(RGB, 8, 3, SAMPLES[:3].tobytes(), resources=junk))
