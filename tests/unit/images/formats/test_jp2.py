from __future__ import annotations

import struct

import numpy as np
import pytest
from PIL import Image

from stylemill.errors import ImageError
from stylemill.images.decode import decode
from stylemill.images.formats.jp2_header import read_jp2
from stylemill.images.options import DecodeOptions
from tests.drawn import wide_gamut_profile
from tests.unit.images.drawn import ALPHA_HW, DEEP_HW, HEIGHT, RGB_HWC, WIDTH, picture, save
from tests.unit.images.jp2 import codestream, definitions, jp2, mapping, palette, profile, space
from tests.unit.images.test_profile import ink_profile
from tests.unit.images.test_stated_colour import gray_profile

OPTIONS = DecodeOptions()
SRGB, GRAY, SYCC, CMYK = 16, 17, 18, 12
COLOR, OPACITY, MULTIPLIED, UNSTATED = 0, 1, 2, 65535
RED, GREEN, BLUE = (RGB_HWC[..., index] for index in range(3))
IN_ORDER = ((0, COLOR, 1), (1, COLOR, 2), (2, COLOR, 3))


def test_channels_in_order_are_decoded_as_stored() -> None:
    for data in (
        codestream([RED, GREEN, BLUE], 8),
        jp2(codestream([RED, GREEN, BLUE], 8), space(SRGB)),
        jp2(codestream([RED, GREEN, BLUE], 8), space(SRGB), definitions(*IN_ORDER)),
    ):
        source = decode(data, OPTIONS)
        np.testing.assert_array_equal(source.image_HWC, RGB_HWC)
        assert source.alpha_HW is None
        assert source.notes == ()


def test_channel_definitions_give_the_order_of_the_colours() -> None:
    data = jp2(codestream([BLUE, GREEN, RED], 8), space(SRGB), definitions((0, 0, 3), (1, 0, 2), (2, 0, 1)))
    np.testing.assert_array_equal(decode(data, OPTIONS).image_HWC, RGB_HWC)


def test_channel_definitions_say_which_channel_is_alpha() -> None:
    given = definitions((0, OPACITY, 0), (1, COLOR, 1), (2, COLOR, 2), (3, COLOR, 3))
    source = decode(jp2(codestream([ALPHA_HW, RED, GREEN, BLUE], 8), space(SRGB), given), OPTIONS)
    np.testing.assert_array_equal(source.image_HWC, RGB_HWC)
    np.testing.assert_array_equal(source.alpha_HW, ALPHA_HW)
    gray = decode(jp2(codestream([ALPHA_HW, RED], 8), space(GRAY), definitions((0, 1, 0), (1, 0, 1))), OPTIONS)
    np.testing.assert_array_equal(gray.image_HWC[..., 1], RED)
    np.testing.assert_array_equal(gray.alpha_HW, ALPHA_HW)


def test_a_channel_without_a_meaning_is_not_alpha() -> None:
    given = definitions(*IN_ORDER, (3, UNSTATED, UNSTATED))
    source = decode(jp2(codestream([RED, GREEN, BLUE, ALPHA_HW], 8), space(SRGB), given), OPTIONS)
    np.testing.assert_array_equal(source.image_HWC, RGB_HWC)
    assert source.alpha_HW is None
    assert source.notes == ("1 of its channels without a stated meaning were dropped",)


def test_colours_multiplied_with_their_opacity_are_divided_by_it() -> None:
    alpha_HW = np.full((HEIGHT, WIDTH), 128, np.uint8)
    stored = [(part.astype(int) * 128 // 255).astype(np.uint8) for part in (RED, GREEN, BLUE)]
    given = definitions(*IN_ORDER, (3, MULTIPLIED, 0))
    source = decode(jp2(codestream([*stored, alpha_HW], 8), space(SRGB), given), OPTIONS)
    assert np.abs(source.image_HWC.astype(int) - RGB_HWC).max() <= 3
    np.testing.assert_array_equal(source.alpha_HW, alpha_HW)


def test_definitions_that_name_no_channel_for_a_colour_are_refused() -> None:
    data = jp2(codestream([RED, GREEN, BLUE], 8), space(SRGB), definitions((0, 0, 1), (1, 0, 1), (9, 0, 3)))
    with pytest.raises(ImageError, match="does not say which channel is colour 2") as caught:
        decode(data, OPTIONS)
    assert caught.value.error_type == "UnsupportedFormat"


COLORS = [(200, 10, 20), (30, 180, 40), (30, 180, 40), (50, 60, 220)]  # one of them twice


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("number", [SRGB, GRAY])
def test_a_palette_of_any_depth_is_applied(bits: int, number: int) -> None:
    indices_HW = (np.arange(WIDTH * HEIGHT).reshape(HEIGHT, WIDTH) % 4).astype(np.uint8)
    columns = 1 if number == GRAY else 3
    colors = [color[:columns] for color in COLORS]
    for boxes in ((), (mapping(*((0, 1, column) for column in range(columns))),)):
        data = jp2(codestream([indices_HW], bits), space(number), palette(colors), *boxes)
        expected = np.array([color * (3 // columns) for color in colors])[indices_HW]
        np.testing.assert_array_equal(decode(data, OPTIONS).image_HWC, expected)


def test_a_palette_of_16_bits_and_one_with_alpha_are_applied() -> None:
    indices_HW = (np.arange(WIDTH * HEIGHT).reshape(HEIGHT, WIDTH) % 4).astype(np.uint8)
    deep = [tuple(257 * value for value in color) for color in COLORS]
    data = jp2(codestream([indices_HW], 8), space(SRGB), palette(deep, 16))
    np.testing.assert_array_equal(decode(data, OPTIONS).image_HWC, np.array(COLORS)[indices_HW])
    with_alpha = palette([(*color, 60 * index) for index, color in enumerate(COLORS)])
    boxes = (mapping(*((0, 1, column) for column in range(4))), definitions(*IN_ORDER, (3, OPACITY, 0)))
    source = decode(jp2(codestream([indices_HW], 8), space(SRGB), with_alpha, *boxes), OPTIONS)
    np.testing.assert_array_equal(source.image_HWC, np.array(COLORS)[indices_HW])
    np.testing.assert_array_equal(source.alpha_HW, 60 * indices_HW)
    beside = (mapping((0, 1, 0), (0, 1, 1), (0, 1, 2), (1, 0, 0)), definitions(*IN_ORDER, (3, OPACITY, 0)))
    source = decode(jp2(codestream([indices_HW, ALPHA_HW], 8), space(SRGB), palette(COLORS), *beside), OPTIONS)
    np.testing.assert_array_equal(source.image_HWC, np.array(COLORS)[indices_HW])
    np.testing.assert_array_equal(source.alpha_HW, ALPHA_HW)


def test_a_palette_in_another_order_is_applied() -> None:
    indices_HW = (np.arange(WIDTH * HEIGHT).reshape(HEIGHT, WIDTH) % 4).astype(np.uint8)
    order = mapping((0, 1, 2), (0, 1, 1), (0, 1, 0))
    data = jp2(codestream([indices_HW], 8), space(SRGB), palette([color[::-1] for color in COLORS]), order)
    np.testing.assert_array_equal(decode(data, OPTIONS).image_HWC, np.array(COLORS)[indices_HW])


@pytest.mark.parametrize("bits", [1, 2, 4, 7])
@pytest.mark.parametrize("count", [1, 3])
def test_samples_of_few_bits_span_the_whole_range(bits: int, count: int) -> None:
    top = (1 << bits) - 1
    ramp_HW = np.tile(np.arange(16) * top // 15, (8, 1))
    source = decode(jp2(codestream([ramp_HW] * count, bits), space(GRAY if count == 1 else SRGB)), OPTIONS)
    np.testing.assert_array_equal(source.image_HWC, np.rint(ramp_HW * 255 / top)[..., None].repeat(3, axis=2))


def test_bilevel_with_white_as_zero_is_inverted() -> None:
    bits_HW = (np.arange(128).reshape(8, 16) % 3 == 0).astype(np.uint8)
    plain, inverted = (decode(jp2(codestream([bits_HW], 1), space(number)), OPTIONS) for number in (15, 0))
    np.testing.assert_array_equal(plain.image_HWC[..., 0], bits_HW * 255)
    np.testing.assert_array_equal(inverted.image_HWC[..., 0], 255 - bits_HW * 255)


@pytest.mark.parametrize("bits", [9, 10, 12, 16])
@pytest.mark.parametrize("irreversible", [False, True])
@pytest.mark.parametrize("count", [2, 3, 4])
def test_the_brightest_samples_of_deep_colour_do_not_turn_black(bits: int, irreversible: bool, count: int) -> None:
    top = (1 << bits) - 1
    ramp_HW = np.tile(np.rint(np.linspace(0, top, 32)).astype(np.uint16), (16, 1))
    ramp_HW[4:8, :8], ramp_HW[8:12, :8] = top, 0
    data = codestream([ramp_HW] * count, bits, irreversible=irreversible)
    for file in (data, jp2(data, space(GRAY if count == 2 else SRGB))):
        source = decode(file, OPTIONS)
        expected = np.rint(ramp_HW / top * 255)
        assert np.abs(source.image_HWC[..., 1] - expected).max() <= 3
        assert (source.image_HWC[5:7, 2:6] >= 252).all()
        assert (source.image_HWC[9:11, 2:6] <= 3).all()
        if count in (2, 4):
            assert source.alpha_HW is not None
            assert (source.alpha_HW[5:7, 2:6] >= 252).all()


def test_gray_whose_depth_is_given_in_a_box_of_its_own_spans_the_whole_range() -> None:
    data = bytearray(jp2(codestream([RED], 8), space(GRAY)))
    data[data.index(b"ihdr") + 14] = 255  # see the box of the depths
    np.testing.assert_array_equal(decode(bytes(data), OPTIONS).image_HWC[..., 0], RED)
    ramp_HW = np.tile(np.linspace(0, 255, 16).astype(np.uint8), (8, 1))
    data = bytearray(jp2(codestream([ramp_HW], 8), space(GRAY)))
    data[data.index(b"ihdr") + 14] = 255
    np.testing.assert_array_equal(decode(bytes(data), OPTIONS).image_HWC[..., 0], ramp_HW)


def test_deep_gray_is_decoded_with_all_its_bits() -> None:
    source = decode(jp2(codestream([DEEP_HW], 16), space(GRAY)), OPTIONS)
    np.testing.assert_array_equal(source.image_HWC[..., 0], np.rint(DEEP_HW / 257))


def ycc(step_x: int, step_y: int, height: int, width: int) -> list[np.ndarray]:
    image = Image.fromarray(RGB_HWC).resize((width, height)).convert("YCbCr")
    brightness, *colors = (np.asarray(band) for band in image.split())
    return [brightness, *(np.ascontiguousarray(band[::step_y, ::step_x]) for band in colors)]


@pytest.mark.parametrize("stated", [True, False])
@pytest.mark.parametrize(("step_x", "step_y"), [(2, 1), (2, 2), (1, 2), (4, 2)])
def test_colours_of_a_lower_resolution_are_decoded(step_x: int, step_y: int, stated: bool) -> None:
    components = ycc(step_x, step_y, 12, 20)
    data = codestream(components, 8, steps=[(1, 1), (step_x, step_y), (step_x, step_y)])
    source = decode(jp2(data, space(SYCC)) if stated else data, OPTIONS)
    bands = [Image.fromarray(part.repeat(20 // part.shape[1], 1).repeat(12 // part.shape[0], 0)) for part in components]
    np.testing.assert_array_equal(source.image_HWC, np.asarray(Image.merge("YCbCr", bands).convert("RGB")))


@pytest.mark.parametrize(("step_x", "step_y", "height", "width"), [(2, 1, 12, 21), (2, 2, 12, 21), (2, 2, 13, 20)])
def test_colours_of_a_lower_resolution_that_would_be_sheared_are_refused(
    step_x: int, step_y: int, height: int, width: int
) -> None:
    data = codestream(ycc(step_x, step_y, height, width), 8, steps=[(1, 1), (step_x, step_y), (step_x, step_y)])
    for file in (data, jp2(data, space(SYCC))):
        with pytest.raises(ImageError, match="convert it to PNG or TIFF") as caught:
            decode(file, OPTIONS)
        assert caught.value.error_type == "UnsupportedFormat"


def test_ycc_of_full_resolution_is_decoded_at_any_size() -> None:
    source = decode(jp2(codestream(ycc(1, 1, 13, 21), 8), space(SYCC)), OPTIONS)
    expected = Image.fromarray(RGB_HWC).resize((21, 13)).convert("YCbCr").convert("RGB")
    np.testing.assert_array_equal(source.image_HWC, np.asarray(expected))


@pytest.mark.parametrize(("number", "name"), [(14, "CIELab"), (24, "e-sYCC"), (99, "number 99")])
def test_other_colour_spaces_are_refused(number: int, name: str) -> None:
    with pytest.raises(ImageError, match=name) as caught:
        decode(jp2(codestream([RED, GREEN, BLUE], 8), space(number)), OPTIONS)
    assert caught.value.error_type == "UnsupportedFormat"


def test_more_or_fewer_channels_than_colours_are_refused_not_called_damaged() -> None:
    for data in (
        codestream([RED] * 5, 8),
        jp2(codestream([RED] * 5, 8), space(SRGB)),
        jp2(codestream([RED, GREEN, BLUE], 8), space(GRAY)),
        jp2(codestream([RED], 8), space(SRGB)),
        jp2(codestream([RED, GREEN, BLUE], 8), space(CMYK)),
    ):
        with pytest.raises(ImageError) as caught:
            decode(data, OPTIONS)
        assert caught.value.error_type == "UnsupportedFormat"


def test_a_profile_is_converted_to_srgb() -> None:
    stream = codestream([RED, GREEN, BLUE], 8)
    source = decode(jp2(stream, profile(wide_gamut_profile())), OPTIONS)
    png = decode(save(Image.fromarray(RGB_HWC), "PNG", icc_profile=wide_gamut_profile()), OPTIONS)
    np.testing.assert_array_equal(source.image_HWC, png.image_HWC)
    assert source.had_profile


@pytest.mark.parametrize("alpha", [False, True])
def test_a_gray_profile_is_used(alpha: bool) -> None:
    level = np.full((16, 16), 64, np.uint8)
    source = decode(jp2(codestream([level] * (1 + alpha), 8), profile(gray_profile())), OPTIONS)
    assert source.notes == ()
    assert (source.image_HWC == 137).all()


def test_a_profile_for_other_channels_is_ignored_with_a_note() -> None:
    source = decode(jp2(codestream([RED, GREEN, BLUE], 8), profile(gray_profile())), OPTIONS)
    np.testing.assert_array_equal(source.image_HWC, RGB_HWC)
    assert source.notes == ("its ICC profile was ignored because it is for GRAY, not for RGB",)


def test_four_inks_with_a_profile_are_not_taken_for_alpha() -> None:
    inks = [np.full((16, 16), 255 * (name == "cyan"), np.uint8) for name in ("cyan", "magenta", "yellow", "black")]
    source = decode(jp2(codestream(inks, 8), profile(ink_profile())), OPTIONS)
    tiff = decode(save(Image.new("CMYK", (16, 16), (255, 0, 0, 0)), "TIFF", icc_profile=ink_profile()), OPTIONS)
    np.testing.assert_array_equal(source.image_HWC, tiff.image_HWC)
    assert source.alpha_HW is None


def test_what_pillow_writes_is_read_with_its_alpha() -> None:
    for mode in ("L", "LA", "RGB", "RGBA"):
        source = decode(save(picture(mode), "JPEG2000"), OPTIONS)
        assert (source.alpha_HW is not None) == mode.endswith("A")


def test_damaged_headers_are_rows_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    boxes = (palette(COLORS), mapping((0, 1, 0), (0, 1, 1), (0, 1, 2)), definitions(*IN_ORDER))
    indices_HW = np.zeros((HEIGHT, WIDTH), np.uint8)
    whole = jp2(codestream([indices_HW], 8), space(SRGB), *boxes)
    for length in range(0, len(whole), 3):
        read_jp2(whole[:length])
    for file in (whole, codestream([DEEP_HW] * 3, 16)):
        for _ in range(200):
            damaged = bytearray(file)
            for _ in range(3):
                damaged[rng.integers(12, min(len(damaged), 250))] = rng.integers(256)
            try:
                decode(bytes(damaged), DecodeOptions(max_pixels=1 << 16))
            except ImageError as error:
                assert str(error)
    tiny_tiles = bytearray(codestream([RED, GREEN, BLUE], 8, steps=[(1, 1), (2, 2), (2, 2)]))
    struct.pack_into(">IIIIIIII", tiny_tiles, 8, 1 << 31, 1 << 31, 0, 0, 1, 1, 0, 0)
    with pytest.raises(ImageError):
        decode(bytes(tiny_tiles), OPTIONS)
