from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from stylemill.images.decode import decode
from stylemill.images.formats.png_chunks import colour_chunks
from stylemill.images.options import DecodeOptions
from tests.unit.images.drawn import DEEP_HW, HEIGHT, WIDTH, picture, save
from tests.unit.images.stated import gamma_chunk, png_chunk, png_with

OPTIONS = DecodeOptions()
GRAY, RGB, PALETTE = 0, 2, 3


def png_of_samples(bits: int, colour_type: int, samples: list[int], *chunks: tuple[bytes, bytes]) -> bytes:
    """One row of samples of any depth, in a PNG written by hand."""
    packed = "".join(f"{sample:0{bits}b}" for sample in samples)
    row = int(packed.ljust(-(-len(packed) // 8) * 8, "0"), 2).to_bytes(-(-len(packed) // 8), "big")
    width = len(samples) // (3 if colour_type == RGB else 1)
    header = struct.pack(">IIBBBBB", width, 1, bits, colour_type, 0, 0, 0)
    body = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(b"\0" + row)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in body)


def transparent(*values: int) -> tuple[bytes, bytes]:
    return b"tRNS", struct.pack(f">{len(values)}H", *values)


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_a_transparent_gray_of_every_depth_hides_its_pixels(bits: int) -> None:
    top = (1 << bits) - 1
    samples = sorted({0, 1, top // 2, top - 1, top})
    for value in samples:
        source = decode(png_of_samples(bits, GRAY, samples, transparent(value)), OPTIONS)
        assert source.alpha_HW is not None
        assert source.alpha_HW[0].tolist() == [0 if sample == value else 255 for sample in samples]
        assert source.image_HWC[0, :, 0].tolist() == [(sample * 255 + top // 2) // top for sample in samples]


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_only_the_bits_of_the_samples_count(bits: int) -> None:
    top = (1 << bits) - 1
    source = decode(png_of_samples(bits, GRAY, [0, top], transparent(0xFF00 | top)), OPTIONS)
    assert source.alpha_HW is not None
    assert source.alpha_HW[0].tolist() == [255, 0]
    even = decode(png_of_samples(bits, GRAY, [0, top], transparent(0xFF00)), OPTIONS)
    assert even.alpha_HW is not None
    assert even.alpha_HW[0].tolist() == [0, 255]


@pytest.mark.parametrize(("bits", "unit"), [(8, 1), (16, 257)])
def test_a_transparent_colour_hides_its_pixels(bits: int, unit: int) -> None:
    samples = [10, 20, 30, 10, 20, 31, 0, 0, 0]
    data = png_of_samples(bits, RGB, [unit * value for value in samples], transparent(10 * unit, 20 * unit, 30 * unit))
    source = decode(data, OPTIONS)
    assert source.alpha_HW is not None
    assert source.alpha_HW[0].tolist() == [0, 255, 255]
    assert source.image_HWC[0].reshape(-1).tolist() == samples


def test_colours_of_16_bits_that_differ_in_their_low_bytes_only_stay_visible() -> None:
    data = png_of_samples(16, RGB, [2570, 20, 30, 2571, 20, 30], transparent(2570, 20, 30))
    source = decode(data, OPTIONS)
    assert source.alpha_HW is not None
    assert source.alpha_HW[0].tolist() == [0, 255]


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("alphas", [b"\0", b"\xff\0", b"\x40\x80", b"\xff\xff"])
def test_the_alphas_of_a_palette_are_kept(bits: int, alphas: bytes) -> None:
    num_colors = min(1 << bits, 4)
    colors = bytes(range(10, 10 + 3 * num_colors))
    samples = list(range(num_colors))
    source = decode(png_of_samples(bits, PALETTE, samples, (b"PLTE", colors), (b"tRNS", alphas)), OPTIONS)
    alpha = np.full(num_colors, 255) if source.alpha_HW is None else source.alpha_HW[0]
    assert alpha.tolist() == [*alphas, *([255] * num_colors)][:num_colors]
    assert source.image_HWC[0].reshape(-1).tolist() == list(colors)


@pytest.mark.parametrize(("mode", "bits"), [("L", 8), ("RGB", 8), ("P", 4), ("P", 8)])
def test_a_transparent_value_is_transparent_in_every_frame(mode: str, bits: int) -> None:
    frames = [Image.new(mode, (8, 4), 0) for _ in range(3)]
    for index, frame in enumerate(frames):
        if mode == "P":
            frame.putpalette([0, 0, 0, 90, 90, 90, 180, 180, 180])
        frame.paste({"L": 119, "RGB": (119, 0, 0), "P": 1}[mode], (0, 0, 3 + index, 4))
    key = {"L": 119, "RGB": (119, 0, 0), "P": 1}[mode]
    data = save(
        frames[0], "PNG", save_all=True, append_images=frames[1:], transparency=key, blend=0, disposal=0, bits=bits
    )
    source = decode(data, DecodeOptions(animation="all"))
    assert len(source.frames) == 3
    for index, frame in enumerate(source.frames):
        assert frame.alpha_HW is not None
        assert (frame.alpha_HW[:, : 3 + index] == 0).all()
        assert (frame.alpha_HW[:, 3 + index :] == 255).all()


def test_frames_of_16_bits_are_not_clipped() -> None:
    # By hand: Pillow writes a single pixel of the second frame only.
    rows = [b"".join(b"\0" + row.astype(">u2").tobytes() for row in frame) for frame in (DEEP_HW, 65535 - DEEP_HW)]
    control = [struct.pack(">IIIIIHHBB", number, WIDTH, HEIGHT, 0, 0, 1, 10, 0, 0) for number in (0, 1)]
    body = [
        (b"IHDR", struct.pack(">IIBBBBB", WIDTH, HEIGHT, 16, GRAY, 0, 0, 0)),
        (b"acTL", struct.pack(">II", 2, 0)),
        (b"fcTL", control[0]),
        (b"IDAT", zlib.compress(rows[0])),
        (b"fcTL", control[1]),
        (b"fdAT", struct.pack(">I", 2) + zlib.compress(rows[1])),
        (b"IEND", b""),
    ]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in body)
    source = decode(data, DecodeOptions(animation="all"))
    assert len(source.frames) == 2
    assert np.abs(source.frames[0].image_HWC[..., 0] - DEEP_HW / 257).max() <= 1
    assert np.abs(source.frames[1].image_HWC[..., 0] - (65535 - DEEP_HW) / 257).max() <= 1


def test_chunks_behind_the_pixels_and_damaged_lengths_are_not_read() -> None:
    data = save(picture("RGB"), "PNG")
    assert colour_chunks(data) == {}
    assert colour_chunks(png_with(data, gamma_chunk(1.0))) == {b"gAMA": struct.pack(">I", 100_000)}
    behind = data[:-12] + png_chunk(*gamma_chunk(1.0)) + data[-12:]
    assert colour_chunks(behind) == {}
    assert colour_chunks(data[:33] + b"\xff\xff\xff\xffgAMA") == {b"gAMA": b""}
    for length in range(60):
        colour_chunks(png_with(data, gamma_chunk(1.0))[:length])
    many = png_with(data, *[(b"teXt", b"")] * 2000, gamma_chunk(1.0))
    assert colour_chunks(many) == {}
