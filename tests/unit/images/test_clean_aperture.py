from __future__ import annotations

import struct

import numpy as np
import pytest
from PIL import Image

from stylemill.images.decode import decode
from stylemill.images.options import DecodeOptions

from .drawn import HEIGHT, WIDTH, picture, save
from .stated import avif_with_aperture

OPTIONS = DecodeOptions()
LEFT, TOP, RIGHT, BOTTOM = 3, 2, 14, 11


def aperture(left: int, top: int, right: int, bottom: int) -> bytes:
    """Width, height and twice the offset of the centre, each as a fraction."""
    width, height = right - left, bottom - top
    return struct.pack(">IIIIiIiI", width, 1, height, 1, left + right - WIDTH, 2, top + bottom - HEIGHT, 2)


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_the_clean_aperture_of_an_avif_is_cut_out(mode: str) -> None:
    data = save(picture(mode), "AVIF")
    whole = decode(data, OPTIONS)
    source = decode(avif_with_aperture(data, aperture(LEFT, TOP, RIGHT, BOTTOM)), OPTIONS)
    np.testing.assert_array_equal(source.image_HWC, whole.image_HWC[TOP:BOTTOM, LEFT:RIGHT])
    assert source.notes == ()
    if mode == "RGBA":
        assert source.alpha_HW is not None
        assert source.alpha_HW.shape == (BOTTOM - TOP, RIGHT - LEFT)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_aperture_is_cut_out_before_the_picture_is_turned(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = save(picture("RGB"), "AVIF", exif=exif)
    source = decode(avif_with_aperture(turned, aperture(LEFT, TOP, RIGHT, BOTTOM)), OPTIONS)
    stored_HWC = decode(save(picture("RGB"), "AVIF"), OPTIONS).image_HWC[TOP:BOTTOM, LEFT:RIGHT]
    operations = Image.Transpose
    upright = {
        1: None,
        2: operations.FLIP_LEFT_RIGHT,
        3: operations.ROTATE_180,
        4: operations.FLIP_TOP_BOTTOM,
        5: operations.TRANSPOSE,
        6: operations.ROTATE_270,
        7: operations.TRANSVERSE,
        8: operations.ROTATE_90,
    }[orientation]
    expected = Image.fromarray(np.ascontiguousarray(stored_HWC))
    expected = expected if upright is None else expected.transpose(upright)
    np.testing.assert_array_equal(source.image_HWC, np.asarray(expected))


@pytest.mark.parametrize(
    "clap",
    [
        aperture(-1, 0, 10, 10),
        aperture(5, 5, WIDTH + 1, HEIGHT),
        aperture(5, 5, 5, 9),
        struct.pack(">IIIIiIiI", 5, 0, 5, 1, 0, 1, 0, 1),
    ],
)
def test_an_aperture_that_is_not_within_the_picture_is_ignored_with_a_note(clap: bytes) -> None:
    data = save(picture("RGB"), "AVIF")
    source = decode(avif_with_aperture(data, clap), OPTIONS)
    np.testing.assert_array_equal(source.image_HWC, decode(data, OPTIONS).image_HWC)
    assert source.notes == ("its clean aperture was ignored because it is not within the picture",)


def test_an_aperture_of_the_whole_picture_changes_nothing() -> None:
    data = save(picture("RGB"), "AVIF")
    source = decode(avif_with_aperture(data, aperture(0, 0, WIDTH, HEIGHT)), OPTIONS)
    np.testing.assert_array_equal(source.image_HWC, decode(data, OPTIONS).image_HWC)
    assert source.notes == ()
