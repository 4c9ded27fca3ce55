from __future__ import annotations

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from stylemill.images.pixels import alpha_to_8_or_16_bits, apply_orientation, scale_to_8_bits
from tests.unit.images.drawn import RGB_HWC


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_as_pillow_does(orientation: int) -> None:
    image = Image.fromarray(RGB_HWC)
    image.getexif()[ExifTags.Base.Orientation] = orientation
    np.testing.assert_array_equal(apply_orientation(RGB_HWC, orientation), np.asarray(ImageOps.exif_transpose(image)))
    assert apply_orientation(RGB_HWC, orientation).flags.c_contiguous


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_to_large_images_tile_by_tile(orientation: int) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (700, 1100, 3), dtype=np.uint8))
    deep = np.random.default_rng(1).integers(0, 65536, (700, 1100), dtype=np.uint16)
    turned = apply_orientation(np.asarray(image), orientation)
    image.getexif()[ExifTags.Base.Orientation] = orientation
    np.testing.assert_array_equal(turned, np.asarray(ImageOps.exif_transpose(image)))
    high, low = (np.repeat(part[..., None], 3, axis=-1).astype(np.uint8) for part in (deep >> 8, deep & 255))
    high, low = (apply_orientation(part, orientation)[..., 0].astype(np.uint16) for part in (high, low))
    np.testing.assert_array_equal(apply_orientation(deep, orientation), high << 8 | low)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.uint64, np.int8, np.int32, np.float32])
def test_alpha_of_every_depth_spans_its_range(dtype: type) -> None:
    top = 1.0 if np.dtype(dtype).kind == "f" else np.iinfo(dtype).max
    bits = alpha_to_8_or_16_bits(np.array([[0, top]], dtype))
    assert bits[0, 0] == 0
    assert bits[0, 1] >= np.iinfo(bits.dtype).max - 1


def test_extreme_floats_do_not_overflow() -> None:
    largest = np.finfo(np.float64).max
    scaled, note = scale_to_8_bits(np.array([-largest, 0, largest]))
    assert scaled.tolist() == [0, 128, 255]
    assert note is not None
    assert scale_to_8_bits(np.zeros((2, 2), np.float32))[0].tolist() == [[0, 0], [0, 0]]
