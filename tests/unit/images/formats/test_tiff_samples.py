from __future__ import annotations

import itertools
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from stylemill.errors import ImageError
from stylemill.images.decode import decode
from stylemill.images.formats.tiff_samples import read_directory, read_samples
from stylemill.images.options import DecodeOptions
from tests.unit.images.drawn import RGB_HWC, save

OPTIONS = DecodeOptions()
KINDS = {"u": 1, "i": 2, "f": 3}


def tiff(
    samples: np.ndarray,
    *,
    order: str = "<",
    deflate: bool = False,
    predictor: int = 1,
    planar: bool = False,
    tile: int = 0,
    rows_per_strip: int = 5,
    extra: int | None = None,
    more: dict[int, tuple[str, tuple[int, ...]]] | None = None,
) -> bytes:
    """Write a TIFF as its specification says: TIFF 6.0, and the predictors of its technical notes."""
    height, width, depth = samples.shape
    planes = [samples[..., i : i + 1] for i in range(depth)] if planar else [samples]
    side = (tile, tile) if tile else (rows_per_strip, width)
    blocks = []
    for plane in planes:
        for top, left in itertools.product(range(0, height, side[0]), range(0, width, side[1])):
            block = plane[top : top + side[0], left : left + side[1]]
            if tile:
                block = np.pad(block, [(0, tile - block.shape[0]), (0, tile - block.shape[1]), (0, 0)])
            blocks.append(encoded(block, order, predictor, deflate))
    offsets, at = [], 8
    for block in blocks:
        offsets.append(at)
        at += len(block)
    bits = 8 * samples.dtype.itemsize
    counts = tuple(len(block) for block in blocks)
    entries: dict[int, tuple[str, tuple[int, ...]]] = {
        256: ("I", (width,)),
        257: ("I", (height,)),
        258: ("H", (bits,) * depth),
        259: ("H", (8 if deflate else 1,)),
        262: ("H", (2 if depth >= 3 else 1,)),
        277: ("H", (depth,)),
        284: ("H", (2 if planar else 1,)),
        317: ("H", (predictor,)),
        339: ("H", (KINDS[samples.dtype.kind],) * depth),
    }
    if tile:
        entries |= {322: ("I", (tile,)), 323: ("I", (tile,)), 324: ("I", tuple(offsets)), 325: ("I", counts)}
    else:
        entries |= {273: ("I", tuple(offsets)), 278: ("I", (rows_per_strip,)), 279: ("I", counts)}
    if extra is not None:
        entries[338] = ("H", (extra,))
    entries |= more or {}
    directory, overflow = struct.pack(order + "H", len(entries)), b""
    end = at + 2 + 12 * len(entries) + 4
    for tag, (kind, values) in sorted(entries.items()):
        packed = struct.pack(f"{order}{len(values)}{kind}", *values)
        if len(packed) > 4:
            packed, overflow = struct.pack(order + "I", end + len(overflow)), overflow + packed
        directory += struct.pack(order + "HHI", tag, {"H": 3, "I": 4}[kind], len(values)) + packed.ljust(4, b"\0")
    header = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", at)
    return header + b"".join(blocks) + directory + bytes(4) + overflow


def encoded(block: np.ndarray, order: str, predictor: int, deflate: bool) -> bytes:
    if predictor == 2:
        block = np.diff(block, axis=1, prepend=np.zeros_like(block[:, :1]))
    raw = block.astype(block.dtype.newbyteorder(order)).tobytes()
    if predictor == 3:
        rows, width, depth = block.shape
        big = block.astype(block.dtype.newbyteorder(">"))
        planes = big.view(np.uint8).reshape(rows, width * depth, -1).swapaxes(1, 2).reshape(rows, -1, depth)
        raw = np.diff(planes, axis=1, prepend=np.zeros_like(planes[:, :1])).tobytes()
    return zlib.compress(raw) if deflate else raw


FLOATS = RGB_HWC.astype(np.float32) / 255


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("tile", [0, 16])
@pytest.mark.parametrize(("deflate", "predictor"), [(False, 1), (True, 1), (True, 3)])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_colour_in_floats_is_decoded(
    order: str, planar: bool, tile: int, deflate: bool, predictor: int, dtype: type
) -> None:
    data = tiff(FLOATS.astype(dtype), order=order, planar=planar, tile=tile, deflate=deflate, predictor=predictor)
    source = decode(data, OPTIONS)
    np.testing.assert_array_equal(source.image_HWC, RGB_HWC)
    assert source.source_mode == f"{np.dtype(dtype)}x3"
    assert source.notes == ()


@pytest.mark.parametrize("predictor", [1, 2])
def test_colour_in_wide_integers_is_stretched(predictor: int) -> None:
    values = RGB_HWC.astype(np.uint32) * 16_843_009
    source = decode(tiff(values, deflate=True, predictor=predictor), OPTIONS)
    low, high = RGB_HWC.min(), RGB_HWC.max()
    expected = np.rint((RGB_HWC.astype(float) - low) * 255 / (int(high) - int(low)))
    np.testing.assert_array_equal(source.image_HWC, expected)
    assert "were stretched" in source.notes[0]


def test_the_float_predictor_is_that_of_libtiff() -> None:
    gray = np.random.default_rng(0).random((30, 41)).astype(np.float32)
    data = save(Image.fromarray(gray), "TIFF", compression="tiff_adobe_deflate", tiffinfo={317: 3})
    tags = read_directory(data)
    assert tags[317] == 3
    np.testing.assert_array_equal(read_samples(data, tags).samples_HWC[..., 0], gray)


@pytest.mark.parametrize("dtype", [np.float32, np.uint32])
def test_alpha_of_colour_in_floats(dtype: type) -> None:
    alpha = np.linspace(0, 1, RGB_HWC.shape[0])[:, None].repeat(RGB_HWC.shape[1], axis=1)
    top = 1 if dtype is np.float32 else 2**32 - 1
    samples = (np.dstack([FLOATS, alpha]).astype(np.float64) * top).astype(dtype)
    source = decode(tiff(samples, extra=2), OPTIONS)
    assert source.alpha_HW is not None
    full = 255 if dtype is np.float32 else 65535
    assert np.abs(source.alpha_HW - alpha * full).max() <= 1
    # Premultiplied, it is divided again.
    premultiplied = samples.copy()
    premultiplied[..., :3] = (samples[..., :3] * alpha[..., None]).astype(dtype)
    again = decode(tiff(premultiplied, extra=1), OPTIONS)
    shown = alpha > 0.05
    assert np.abs(again.image_HWC[shown].astype(int) - source.image_HWC[shown]).max() <= 2


def test_orientation_is_applied() -> None:
    data = tiff(FLOATS, more={274: ("H", (6,))})
    np.testing.assert_array_equal(decode(data, OPTIONS).image_HWC, np.rot90(RGB_HWC, -1))


def test_a_file_that_ends_inside_its_pixels_is_truncated() -> None:
    for deflate in (False, True):
        data = tiff(FLOATS, deflate=deflate, more={279: ("I", (20, 20, 20)) if deflate else ("I", (5, 5, 5))})
        with pytest.raises(ImageError) as refused:
            decode(data, OPTIONS)
        assert refused.value.error_type in ("Truncated", "Corrupt")
    with pytest.raises(ImageError, match="has 1 blocks") as refused:
        decode(tiff(FLOATS, more={273: ("I", (8,)), 279: ("I", (23 * 5 * 12,))}), OPTIONS)
    assert refused.value.error_type == "Truncated"


@pytest.mark.parametrize("more", [{256: ("I", (2**31,))}, {257: ("I", (2**31,))}])
def test_size_is_checked_before_anything_is_allocated(more: dict[int, tuple[str, tuple[int, ...]]]) -> None:
    with pytest.raises(ImageError) as refused:
        decode(tiff(FLOATS, more=more), OPTIONS)
    assert refused.value.error_type == "TooManyPixels"


@pytest.mark.parametrize(
    "more",
    [{322: ("I", (2**30,)), 323: ("I", (2**30,)), 324: ("I", (8,)), 325: ("I", (99,))}, {278: ("I", (0,))}],
)
def test_blocks_larger_than_the_picture_are_damage(more: dict[int, tuple[str, tuple[int, ...]]]) -> None:
    with pytest.raises(ImageError, match="blocks of") as refused:
        decode(tiff(FLOATS, more=more), OPTIONS)
    assert refused.value.error_type == "Corrupt"


def test_a_strip_that_inflates_to_far_more_than_its_pixels_takes_no_memory_for_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bomb = zlib.compress(bytes(64 << 20))
    monkeypatch.setitem(globals(), "encoded", lambda *_: bomb)
    data = tiff(FLOATS, deflate=True, rows_per_strip=len(FLOATS))
    tracemalloc.start()
    try:
        assert not decode(data, OPTIONS).image_HWC.any()
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_an_unsupported_compression_is_named() -> None:
    lzw = tiff(FLOATS, more={259: ("H", (5,))})
    with pytest.raises(ImageError, match="compression 5") as refused:
        decode(lzw, OPTIONS)
    assert refused.value.error_type == "UnsupportedFormat"


def test_unsigned_32_bits_of_gray_are_not_negative() -> None:
    gray = np.array([[0, 2**31], [2**32 - 1, 2**30]], np.uint32)
    source = decode(tiff(gray[..., None], rows_per_strip=2), OPTIONS)
    assert source.image_HWC[..., 0].tolist() == [[0, 128], [255, 64]]
