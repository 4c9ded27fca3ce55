from __future__ import annotations

import itertools

import numpy as np
import pytest

from stylemill.errors import ImageError
from stylemill.images.decode import decode
from stylemill.images.options import DecodeOptions

from .test_tiff_samples import tiff

OPTIONS = DecodeOptions()
ROWS, COLUMNS = np.mgrid[0:45, 0:70]
SAMPLES = np.stack([COLUMNS * 3, ROWS * 5, (COLUMNS + ROWS) * 2, 255 - COLUMNS * 2, ROWS * 3], axis=-1).astype(np.uint8)
GRAY, RGB, CMYK, YCBCR = 1, 2, 5, 6
NUM_COLORS = {GRAY: 1, RGB: 3, CMYK: 4}
UNKNOWN, PREMULTIPLIED, STRAIGHT = 0, 1, 2


def layout(photometric: int, num_samples: int, bits: int, **options: object) -> bytes:
    samples = SAMPLES[..., :num_samples]
    deep = samples if bits == 8 else samples.astype(f"u{bits // 8}") * (((1 << bits) - 1) // 255)
    more = {262: ("H", (photometric,))}
    return tiff(np.ascontiguousarray(deep.astype(f"u{bits // 8}")), more=more, **options)  # type: ignore[arg-type]


def expected_HWC(photometric: int, extra: int | None) -> np.ndarray:
    colors = SAMPLES[..., : NUM_COLORS[photometric]].astype(int)
    if extra == PREMULTIPLIED:
        alpha = SAMPLES[..., NUM_COLORS[photometric], None].astype(int)
        colors = np.where(alpha == 0, 0, np.minimum(colors * 255 // np.maximum(alpha, 1), 255))
    if photometric == CMYK:
        return (255 - colors[..., :3]) * (255 - colors[..., 3:]) // 255
    return np.broadcast_to(colors, (45, 70, 3))


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("extra", [None, UNKNOWN, STRAIGHT])
@pytest.mark.parametrize("photometric", [GRAY, RGB, CMYK])
def test_every_layout_has_the_right_pixels(photometric: int, extra: int | None, bits: int) -> None:
    num_samples = NUM_COLORS[photometric] + (extra is not None)
    for planar, order, tile, deflate in itertools.product((False, True), "<>", (0, 32), (False, True)):
        if planar and num_samples == 1:
            continue
        data = layout(
            photometric, num_samples, bits, planar=planar, order=order, tile=tile, deflate=deflate, extra=extra
        )
        where = f"planar {planar}, order {order}, tile {tile}, deflate {deflate}"
        source = decode(data, OPTIONS)
        difference = np.abs(source.image_HWC.astype(int) - expected_HWC(photometric, extra))
        assert difference.max() <= 2, where
        if extra == STRAIGHT:
            assert source.alpha_HW is not None, where
            alpha = source.alpha_HW.astype(int) // (257 if source.alpha_HW.dtype == np.uint16 else 1)
            assert np.abs(alpha - SAMPLES[..., NUM_COLORS[photometric]]).max() <= 1, where
        assert any("no stated meaning" in note for note in source.notes) == (extra == UNKNOWN), where


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("photometric", [GRAY, RGB])
def test_premultiplied_alpha_is_divided_out(photometric: int, planar: bool) -> None:
    data = layout(photometric, NUM_COLORS[photometric] + 1, 16, planar=planar, extra=PREMULTIPLIED)
    source = decode(data, OPTIONS)
    opaque = SAMPLES[..., NUM_COLORS[photometric]] > 30
    difference = np.abs(source.image_HWC.astype(int) - expected_HWC(photometric, PREMULTIPLIED))[opaque]
    assert difference.max() <= 3


@pytest.mark.parametrize("bits", [3, 5, 7, 9, 10, 11, 13, 14, 15, 24])
@pytest.mark.parametrize(("photometric", "num_samples"), [(GRAY, 1), (RGB, 3), (CMYK, 4)])
def test_odd_depths_are_named(photometric: int, num_samples: int, bits: int) -> None:
    data = layout(photometric, num_samples, 8)
    odd = tiff(SAMPLES[..., :num_samples].copy(), more={258: ("H", (bits,) * num_samples), 262: ("H", (photometric,))})
    assert decode(data, OPTIONS).width_px == 70
    assert refused_as_unsupported(odd)


def test_uncompressed_subsampled_colours_are_named() -> None:
    subsampled = {262: ("H", (YCBCR,)), 530: ("H", (2, 1))}
    assert "subsampled" in refused_as_unsupported(tiff(SAMPLES[..., :3].copy(), more=subsampled))


def test_planes_in_other_compressions_with_more_samples_are_named() -> None:
    lzw = {259: ("H", (5,)), 262: ("H", (RGB,))}
    assert refused_as_unsupported(tiff(SAMPLES[..., :4].copy(), planar=True, extra=UNKNOWN, more=lzw))


@pytest.mark.parametrize("ink_set", [2])
def test_other_inks_than_cmyk_are_named(ink_set: int) -> None:
    more = {262: ("H", (CMYK,)), 332: ("H", (ink_set,))}
    assert refused_as_unsupported(tiff(SAMPLES[..., :4].astype(np.uint32), more=more))


def refused_as_unsupported(data: bytes) -> str:
    with pytest.raises(ImageError) as refused:
        decode(data, OPTIONS)
    assert refused.value.error_type == "UnsupportedFormat"
    return refused.value.message
