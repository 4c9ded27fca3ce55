from __future__ import annotations

import io
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from stylemill.errors import ImageError
from stylemill.images.decode import decode
from stylemill.images.encode import encode, encode_frames, output_format_of
from stylemill.images.options import DecodeOptions, EncodeOptions, OutputFormat
from stylemill.images.source_image import SourceImage

from .drawn import ALPHA_HW, HEIGHT, RGB_HWC, WIDTH, animation, every_file, picture, save

OPTIONS = DecodeOptions()
ALL_FRAMES = DecodeOptions(animation="all")
LOSSLESS = ("png", "tiff", "bmp", "ppm", "tga", "jpeg2000", "webp")


def source_of(image_format: str, *, alpha_HW: np.ndarray | None = None, **fields: object) -> SourceImage:
    return SourceImage(
        image_HWC=RGB_HWC,
        alpha_HW=alpha_HW,
        source_format=image_format,
        source_mode="RGB",
        **fields,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("name", sorted(every_file()))
@pytest.mark.parametrize("chosen", get_args(OutputFormat))
def test_every_source_can_be_written_in_every_format(name: str, chosen: OutputFormat) -> None:
    source = decode(every_file()[name], OPTIONS)
    encoded = encode(source.image_HWC, source, EncodeOptions(format=chosen))
    again = decode(encoded.data, OPTIONS)
    assert again.source_format == encoded.format
    assert (
        (again.width_px, again.height_px)
        == (encoded.width_px, encoded.height_px)
        == (source.width_px, source.height_px)
    )
    if chosen != "same":
        assert encoded.format == chosen
    elif encoded.format != source.source_format:
        assert encoded.notes[0].startswith(f"written as {encoded.format.upper()} because")
    if source.alpha_HW is not None:
        if again.alpha_HW is None:
            assert encoded.format == "jpeg" or (source.alpha_HW == 255).all() or encoded.format == "gif"
        elif encoded.format != "gif":
            np.testing.assert_array_equal(again.alpha_HW, source.alpha_HW)


@pytest.mark.parametrize("image_format", LOSSLESS)
def test_lossless_sources_come_back_bit_for_bit(image_format: str) -> None:
    options = {"lossless": True} if image_format == "webp" else {}
    source = decode(save(picture("RGB"), image_format.upper(), **options), OPTIONS)
    encoded = encode(source.image_HWC, source, EncodeOptions())
    assert encoded.format == image_format
    np.testing.assert_array_equal(decode(encoded.data, OPTIONS).image_HWC, RGB_HWC)


@pytest.mark.parametrize("image_format", ["png", "webp", "tiff", "avif", "jpeg2000", "tga"])
@given(
    alpha=st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32)),
)
@settings(max_examples=8, deadline=None)
def test_alpha_of_any_size_is_exactly_kept(image_format: str, alpha: tuple[int, int, int]) -> None:
    height, width, seed = alpha
    generator = np.random.default_rng(seed)
    alpha_HW = generator.integers(0, 256, (height, width), dtype=np.uint8)
    image_HWC = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
    source = SourceImage(image_HWC=image_HWC, alpha_HW=alpha_HW, source_format=image_format, source_mode="RGBA")
    again = decode(encode(image_HWC, source, EncodeOptions()).data, OPTIONS)
    np.testing.assert_array_equal(again.alpha_HW, alpha_HW)


def test_colours_under_full_transparency_survive_in_a_lossless_webp() -> None:
    source = source_of("webp", alpha_HW=np.zeros((HEIGHT, WIDTH), np.uint8), lossless=True)
    np.testing.assert_array_equal(decode(encode(RGB_HWC, source, EncodeOptions()).data, OPTIONS).image_HWC, RGB_HWC)


def test_sixteen_bit_alpha_is_written_with_sixteen_bits() -> None:
    alpha_HW = np.random.default_rng(3).integers(0, 65536, (HEIGHT, WIDTH), dtype=np.uint16)
    source = source_of("png", alpha_HW=alpha_HW)
    again = decode(encode(RGB_HWC, source, EncodeOptions()).data, OPTIONS)
    np.testing.assert_array_equal(again.alpha_HW, alpha_HW)
    np.testing.assert_array_equal(again.image_HWC, RGB_HWC)
    reduced = encode(RGB_HWC, source, EncodeOptions(format="webp"))
    assert "alpha reduced from 16 to 8 bits" in reduced.notes[0]
    np.testing.assert_array_equal(decode(reduced.data, OPTIONS).alpha_HW, alpha_HW >> 8)


def test_jpeg_flattens_transparency_on_white_with_a_note() -> None:
    alpha_HW = np.zeros((HEIGHT, WIDTH), np.uint8)
    alpha_HW[:, : WIDTH // 2] = 255
    encoded = encode(RGB_HWC, source_of("png", alpha_HW=alpha_HW), EncodeOptions(format="jpeg"))
    assert encoded.notes == ("flattened on white because JPEG has no alpha",)
    assert (decode(encoded.data, OPTIONS).image_HWC[:, 20:] > 245).all()
    opaque = encode(RGB_HWC, source_of("png", alpha_HW=alpha_HW | 255), EncodeOptions(format="jpeg"))
    assert opaque.notes == ()


def test_gif_keeps_few_colours_exactly_and_reduces_many_with_a_note() -> None:
    few = RGB_HWC // 64 * 64
    encoded = encode(few, source_of("gif"), EncodeOptions())
    np.testing.assert_array_equal(decode(encoded.data, OPTIONS).image_HWC, few)
    assert encoded.notes == ()
    many = np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8)
    noted = encode(many, SourceImage(image_HWC=many, source_format="gif", source_mode="P"), EncodeOptions())
    assert noted.notes == ("reduced to 256 colours because GIF holds no more",)


def test_hidden_pixels_of_a_gif_use_no_palette_entry() -> None:
    colors = np.stack([np.arange(256)] * 3, axis=-1).astype(np.uint8).reshape(16, 16, 3)
    alpha_HW = np.full((16, 16), 255, np.uint8)
    alpha_HW[0, 0] = 0  # 255 colours remain, and transparency
    source = SourceImage(image_HWC=colors, alpha_HW=alpha_HW, source_format="gif", source_mode="P")
    encoded = encode(colors, source, EncodeOptions())
    assert encoded.notes == ()
    again = decode(encoded.data, OPTIONS)
    np.testing.assert_array_equal(again.alpha_HW, alpha_HW)
    np.testing.assert_array_equal(again.image_HWC[alpha_HW > 0], colors[alpha_HW > 0])


def test_a_gif_may_be_hidden_altogether() -> None:
    hidden = source_of("gif", alpha_HW=np.zeros((HEIGHT, WIDTH), np.uint8))
    assert not np.any(decode(encode(RGB_HWC, hidden, EncodeOptions()).data, OPTIONS).alpha_HW)


def test_transparency_of_a_gif_is_kept() -> None:
    alpha_HW = np.where(ALPHA_HW > 120, 255, 0).astype(np.uint8)
    for image in (RGB_HWC // 64 * 64, np.random.default_rng(0).integers(0, 256, RGB_HWC.shape, dtype=np.uint8)):
        encoded = encode(image, source_of("gif", alpha_HW=alpha_HW), EncodeOptions())
        np.testing.assert_array_equal(decode(encoded.data, OPTIONS).alpha_HW, alpha_HW)


@pytest.mark.parametrize("image_format", ["jpeg", "png", "webp", "tiff", "avif"])
def test_the_result_of_a_source_with_a_profile_is_tagged_as_srgb(image_format: str) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    source = decode(save(picture("RGB"), image_format.upper(), icc_profile=profile), OPTIONS)
    data = encode(source.image_HWC, source, EncodeOptions()).data
    if image_format == "png":
        assert b"sRGB\0" in data
        assert b"iCCP" not in data
        return
    tag = ImageCms.ImageCmsProfile(io.BytesIO(Image.open(io.BytesIO(data)).info["icc_profile"]))
    assert "sRGB" in ImageCms.getProfileDescription(tag)


def test_the_same_arguments_give_the_same_bytes() -> None:
    frames = decode(animation("GIF"), ALL_FRAMES)
    for image_format in ("jpeg", "png", "webp", "tiff", "gif", "avif", "jpeg2000", "bmp", "ppm", "tga"):
        source = source_of(image_format, alpha_HW=ALPHA_HW, had_profile=True)
        results = {encode(RGB_HWC, source, EncodeOptions()).data for _ in range(3)}
        assert len(results) == 1
    pictures = [frame.image_HWC for frame in frames.frames]
    assert len({encode_frames(pictures, frames, EncodeOptions()).data for _ in range(3)}) == 1


@pytest.mark.parametrize("container", ["GIF", "WEBP", "PNG", "AVIF"])
@pytest.mark.parametrize("target", ["same", "png", "webp"])
@pytest.mark.parametrize("opaque", [False, True])
def test_animations_keep_timing_loops_and_transparency(container: str, target: OutputFormat, opaque: bool) -> None:
    source = decode(animation(container, opaque=opaque), ALL_FRAMES)
    painted = [255 - frame.image_HWC // 64 * 64 for frame in source.frames]
    encoded = encode_frames(painted, source, EncodeOptions(format=target))
    again = decode(encoded.data, ALL_FRAMES)
    assert again.source_format == encoded.format
    assert [frame.duration_ms for frame in again.frames] == [40, 70, 100]
    if "AVIF" not in (container, encoded.format.upper()):
        assert again.loop == 3
    for before, after, frame in zip(painted, again.frames, source.frames, strict=True):
        if opaque:
            assert after.alpha_HW is None
        else:
            np.testing.assert_array_equal(after.alpha_HW > 127, frame.alpha_HW > 127)  # type: ignore[operator]
        shown = np.ones(before.shape[:2], bool) if frame.alpha_HW is None else frame.alpha_HW == 255
        difference = np.abs(before.astype(int) - after.image_HWC)[shown]
        if encoded.format in ("gif", "png"):
            assert difference.max() == 0
        else:
            assert difference.mean() < 12


def test_an_animation_becomes_its_first_frame_in_a_jpeg() -> None:
    source = decode(animation("GIF", opaque=True), ALL_FRAMES)
    encoded = encode_frames([frame.image_HWC for frame in source.frames], source, EncodeOptions(format="jpeg"))
    assert encoded.notes == ("first of 3 frames because JPEG holds no animation",)


def test_every_frame_needs_a_picture() -> None:
    source = decode(animation("GIF"), ALL_FRAMES)
    with pytest.raises(ValueError, match="1 pictures for 3 frames"):
        encode_frames([RGB_HWC], source, EncodeOptions())


def test_alpha_is_scaled_to_a_smaller_result_with_a_note() -> None:
    encoded = encode(RGB_HWC[::2, ::2].copy(), source_of("png", alpha_HW=ALPHA_HW), EncodeOptions())
    again = decode(encoded.data, OPTIONS)
    assert again.alpha_HW is not None
    assert again.alpha_HW.shape == (7, 12)
    assert encoded.notes == ("scaled from 23 x 14 px",)


def test_an_image_that_its_format_cannot_hold_fails() -> None:
    wide = np.zeros((1, 20_000, 3), np.uint8)
    with pytest.raises(ImageError, match="20000 x 1 px could not be written as WEBP") as failed:
        encode(wide, SourceImage(image_HWC=wide, source_format="webp", source_mode="RGB"), EncodeOptions())
    assert failed.value.error_type == "EncodeFailed"


def test_quality_moves_the_size() -> None:
    for image_format in ("jpeg", "webp", "avif"):
        sizes = [len(encode(RGB_HWC, source_of(image_format), EncodeOptions(quality=q)).data) for q in (10, 95)]
        assert sizes[0] < sizes[1]


@pytest.mark.parametrize(
    ("source_format", "has_alpha", "written"),
    [
        ("jpeg", False, "jpeg"),
        ("bmp", False, "bmp"),
        ("bmp", True, "png"),
        ("heif", False, "jpeg"),
        ("heif", True, "png"),
        ("ico", True, "png"),
        ("psd", False, "png"),
    ],
)
def test_same_keeps_what_can_be_written(source_format: str, has_alpha: bool, written: str) -> None:
    assert output_format_of(source_format, has_alpha=has_alpha, options=EncodeOptions()) == written
    assert output_format_of(source_format, has_alpha=has_alpha, options=EncodeOptions(format="webp")) == "webp"
