from __future__ import annotations

import struct
import zlib

import numpy as np

from stylemill.images.decode import decode
from stylemill.images.formats.alpha16 import write_png16
from stylemill.images.options import DecodeOptions
from tests.unit.images.drawn import ALPHA_HW, DEEP_HW, HEIGHT, RGB_HWC, WIDTH

OPTIONS = DecodeOptions()


def test_sixteen_bit_alpha_is_kept_to_the_last_bit() -> None:
    alpha_HW = np.random.default_rng(1).integers(0, 65536, (HEIGHT, WIDTH), dtype=np.uint16)
    source = decode(write_png16(RGB_HWC, alpha_HW, []), OPTIONS)
    np.testing.assert_array_equal(source.image_HWC, RGB_HWC)
    assert source.alpha_HW is not None
    assert source.alpha_HW.dtype == np.uint16
    np.testing.assert_array_equal(source.alpha_HW, alpha_HW)


def test_sixteen_bit_alpha_that_eight_bits_hold_becomes_eight_bits() -> None:
    source = decode(write_png16(RGB_HWC, ALPHA_HW.astype(np.uint16) * 257, []), OPTIONS)
    assert source.alpha_HW is not None
    assert source.alpha_HW.dtype == np.uint8
    np.testing.assert_array_equal(source.alpha_HW, ALPHA_HW)


def png(width: int, height: int, bits: int, color: int, rows: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    body = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in body)


def test_gray_with_sixteen_bit_alpha() -> None:
    samples = np.stack([DEEP_HW, DEEP_HW[::-1]], axis=-1).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in samples)
    source = decode(png(WIDTH, HEIGHT, 16, 4, rows), OPTIONS)
    np.testing.assert_array_equal(source.alpha_HW, DEEP_HW[::-1])
    assert np.abs(source.image_HWC[..., 0] - DEEP_HW / 257).max() <= 1


def test_a_transparent_colour_of_sixteen_bits_hides_that_colour_alone() -> None:
    samples = np.zeros((2, 2, 3), ">u2")
    samples[0, 0] = (0x1234, 0x5678, 0x9ABC)
    samples[0, 1] = (0x1235, 0x5678, 0x9ABC)  # the same in its high bytes
    rows = b"".join(b"\0" + row.tobytes() for row in samples)
    data = png(2, 2, 16, 2, rows, (b"tRNS", struct.pack(">HHH", 0x1234, 0x5678, 0x9ABC)))
    assert decode(data, OPTIONS).alpha_HW.tolist() == [[0, 255], [255, 255]]  # type: ignore[union-attr]


def test_a_transparent_gray_of_sixteen_bits() -> None:
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in DEEP_HW)
    data = png(WIDTH, HEIGHT, 16, 0, rows, (b"tRNS", struct.pack(">H", 2000)))
    np.testing.assert_array_equal(decode(data, OPTIONS).alpha_HW, np.where(DEEP_HW == 2000, 0, 255))
