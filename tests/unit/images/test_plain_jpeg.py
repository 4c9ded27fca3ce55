"""Tests of the JPEG files that a GPU may decode, and of the source that results."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import pytest
from PIL import Image, ImageCms

from stylemill.images.decode import decode
from stylemill.images.options import DecodeOptions
from stylemill.images.plain_jpeg import PlainJpeg, plain_jpeg
from stylemill.images.profile import srgb_profile
from tests.drawn import wide_gamut_profile

from .drawn import RGB_HWC, every_file, picture, save
from .test_metadata import XMP, photo_exif

OPTIONS = DecodeOptions()


def stored_pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def assert_same_source(jpeg: PlainJpeg, data: bytes) -> None:
    expected, actual = decode(data, OPTIONS), jpeg.source(stored_pixels(data))
    np.testing.assert_array_equal(actual.image_HWC, expected.image_HWC)
    for field in dataclasses.fields(expected):
        if field.name != "image_HWC":
            assert getattr(actual, field.name) == getattr(expected, field.name), field.name
    assert (jpeg.width_px, jpeg.height_px) == (expected.width_px, expected.height_px)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_source_equals_that_of_decode(orientation: int) -> None:
    data = save(
        picture("RGB"), "JPEG", exif=photo_exif(orientation), xmp=XMP, dpi=(300, 150), icc_profile=srgb_profile()
    )
    jpeg = plain_jpeg(data, OPTIONS)
    assert jpeg is not None and jpeg.orientation == orientation
    assert_same_source(jpeg, data)


@pytest.mark.parametrize("options", [{"progressive": True}, {"subsampling": 0}, {"subsampling": 2}, {"comment": b"c"}])
def test_plain_jpegs_are_accepted(options: dict) -> None:
    data = save(picture("RGB"), "JPEG", **options)
    jpeg = plain_jpeg(data, OPTIONS)
    assert jpeg is not None
    assert_same_source(jpeg, data)


def test_of_all_that_pillow_writes_only_jpegs_of_three_channels_are_plain() -> None:
    plain = {name for name, data in every_file().items() if plain_jpeg(data, OPTIONS)}
    of_jpegs = {name for name in every_file() if name.startswith(("JPEG-RGB", "JPEG-YCbCr"))}
    assert of_jpegs and of_jpegs <= plain
    for name in plain:
        assert Image.open(io.BytesIO(every_file()[name])).mode == "RGB"
        assert name.startswith(("JPEG-", "MPO-"))


GRAY_PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()


@pytest.mark.parametrize(
    "data",
    [
        save(picture("L"), "JPEG"),
        save(picture("CMYK"), "JPEG"),
        save(picture("RGB"), "JPEG", keep_rgb=True),
        save(picture("RGB"), "JPEG", icc_profile=wide_gamut_profile()),
        save(picture("RGB"), "JPEG", icc_profile=b"damaged" * 40),
        save(picture("RGB"), "JPEG", icc_profile=GRAY_PROFILE),
        save(picture("RGB"), "JPEG")[:-300],
        save(picture("RGB"), "JPEG")[:12],
        b"",
        b"\xff\xd8\xff" + bytes(5000),
        save(picture("RGB"), "PNG"),
    ],
    ids=["grey", "inks", "RGB", "wide gamut", "bad profile", "Lab profile", "cut", "stub", "none", "0", "PNG"],
)
def test_files_that_decode_must_handle(data: bytes) -> None:
    assert plain_jpeg(data, OPTIONS) is None


def test_limits_are_those_of_decode() -> None:
    data = save(picture("RGB"), "JPEG")
    height_px, width_px, _ = RGB_HWC.shape
    assert plain_jpeg(data, DecodeOptions(max_pixels=height_px * width_px)) is not None
    assert plain_jpeg(data, DecodeOptions(max_pixels=height_px * width_px - 1)) is None
    assert plain_jpeg(data, DecodeOptions(max_source_bytes=len(data) - 1)) is None


def test_pixels_of_another_size_than_the_header_says_are_refused() -> None:
    jpeg = plain_jpeg(save(picture("RGB"), "JPEG"), OPTIONS)
    assert jpeg is not None
    with pytest.raises(ValueError, match="the header gives"):
        jpeg.source(RGB_HWC[:-1])
