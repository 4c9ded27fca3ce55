from __future__ import annotations

import struct

import numpy as np
import pytest
from PIL import Image

from stylemill.images.decode import decode
from stylemill.images.options import DecodeOptions
from tests.drawn import wide_gamut_profile

from .drawn import RGB_HWC, animation, picture, save
from .stated import (
    BT2020_TO_XYZ,
    P3_TO_XYZ,
    XYZ_TO_SRGB,
    as_srgb,
    avif_with_code_points,
    chromaticity_chunk,
    cicp_chunk,
    flat_avif,
    flat_png,
    gamma_chunk,
    png_with,
    srgb_light,
)

OPTIONS = DecodeOptions()
COLOR = (180, 120, 90)
SRGB_CHROMATICITIES = (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
P3_CHROMATICITIES = (0.3127, 0.3290, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06)
TO_XYZ = {9: BT2020_TO_XYZ, 12: P3_TO_XYZ}


def converted(color: tuple[int, ...], primaries: int) -> np.ndarray:
    return as_srgb(XYZ_TO_SRGB @ TO_XYZ[primaries] @ srgb_light(np.array(color)))


@pytest.mark.parametrize("primaries", sorted(TO_XYZ))
@pytest.mark.parametrize("transfer", [1, 2, 6, 13, 14, 15])
def test_wide_gamut_of_an_avif_is_converted(primaries: int, transfer: int) -> None:
    source = decode(flat_avif(COLOR, primaries, transfer), OPTIONS)
    assert source.had_profile
    assert source.notes == ()
    assert np.abs(source.image_HWC[8, 8] - converted(COLOR, primaries)).max() <= 4
    assert source.image_HWC[8, 8, 0] > COLOR[0] + 6


@pytest.mark.parametrize("code_points", [(1, 13), (1, 1), (1, 6), (2, 2), (2, 13), (1, 2), (1, 14)])
def test_code_points_that_browsers_show_as_srgb_change_nothing(code_points: tuple[int, int]) -> None:
    plain = save(picture("RGB"), "AVIF")
    source = decode(avif_with_code_points(plain, *code_points), OPTIONS)
    np.testing.assert_array_equal(source.image_HWC, decode(plain, OPTIONS).image_HWC)
    assert source.notes == ()
    assert not source.had_profile


@pytest.mark.parametrize(("transfer", "power"), [(4, 2.2), (5, 2.8), (8, 1.0)])
def test_gammas_of_code_points_are_converted(transfer: int, power: float) -> None:
    expected = as_srgb((np.array(COLOR) / 255) ** power)
    for data in (flat_avif(COLOR, 1, transfer), flat_png(COLOR, cicp_chunk(1, transfer))):
        assert np.abs(decode(data, OPTIONS).image_HWC[4, 4] - expected).max() <= 4


def test_unknown_code_points_are_ignored_with_a_note() -> None:
    for data in (flat_avif(COLOR, 77, 13), flat_png(COLOR, cicp_chunk(1, 99)), flat_avif(COLOR, 10, 13)):
        source = decode(data, OPTIONS)
        assert np.abs(source.image_HWC[4, 4].astype(int) - COLOR).max() <= 2
        assert len(source.notes) == 1
        assert "was ignored" in source.notes[0]
        assert not source.had_profile


def test_the_profile_of_an_avif_wins_over_its_code_points() -> None:
    data = save(picture("RGB"), "AVIF", icc_profile=wide_gamut_profile())
    expected = decode(data, OPTIONS).image_HWC
    np.testing.assert_array_equal(decode(avif_with_code_points(data, 9, 16), OPTIONS).image_HWC, expected)


def test_all_frames_of_an_animation_are_converted() -> None:
    data = avif_with_code_points(animation("AVIF", opaque=True), 12, 13)
    source = decode(data, DecodeOptions(animation="all"))
    assert source.frames[0].image_HWC[8, 8, 0] > 206  # 200 in sRGB, if the primaries were not regarded
    still = decode(data, OPTIONS)
    np.testing.assert_array_equal(still.image_HWC, source.frames[0].image_HWC)


@pytest.mark.parametrize("primaries", sorted(TO_XYZ))
def test_code_points_of_a_png_win_over_everything_else(primaries: int) -> None:
    others = [(b"sRGB", b"\0"), gamma_chunk(1.0), chromaticity_chunk(*SRGB_CHROMATICITIES)]
    source = decode(flat_png(COLOR, cicp_chunk(primaries, 13), *others), OPTIONS)
    assert np.abs(source.image_HWC[4, 4] - converted(COLOR, primaries)).max() <= 2
    with_profile = png_with(
        save(Image.new("RGB", (8, 8), COLOR), "PNG", icc_profile=wide_gamut_profile()), cicp_chunk(primaries, 13)
    )
    np.testing.assert_array_equal(decode(with_profile, OPTIONS).image_HWC, source.image_HWC)


def test_a_profile_of_a_png_wins_over_srgb_and_gamma() -> None:
    data = save(Image.new("RGB", (8, 8), COLOR), "PNG", icc_profile=wide_gamut_profile())
    expected = decode(data, OPTIONS).image_HWC
    assert (expected != COLOR).any()
    for chunks in ([(b"sRGB", b"\0")], [gamma_chunk(1.0), chromaticity_chunk(*SRGB_CHROMATICITIES)]):
        np.testing.assert_array_equal(decode(png_with(data, *chunks), OPTIONS).image_HWC, expected)


def test_srgb_of_a_png_wins_over_gamma() -> None:
    source = decode(flat_png(COLOR, (b"sRGB", b"\0"), gamma_chunk(1.0)), OPTIONS)
    assert tuple(source.image_HWC[4, 4]) == COLOR
    assert source.notes == ()


def test_a_gamma_of_1_6_becomes_the_gamma_of_screens() -> None:
    source = decode(flat_png((255, 255, 188), gamma_chunk(0.625)), OPTIONS)
    assert tuple(source.image_HWC[4, 4]) == (255, 255, 204)
    assert source.had_profile
    assert source.notes == ()
    palette = save(Image.new("RGB", (8, 8), (255, 255, 188)).quantize(2), "PNG")
    assert tuple(decode(png_with(palette, gamma_chunk(0.625)), OPTIONS).image_HWC[4, 4]) == (255, 255, 204)


@pytest.mark.parametrize("mode", ["L", "LA", "I;16", "RGBA"])
def test_a_gamma_is_regarded_in_every_mode(mode: str) -> None:
    data = save(picture(mode), "PNG")
    dark, light = decode(data, OPTIONS), decode(png_with(data, gamma_chunk(1.0)), OPTIONS)
    expected = 255 * (dark.image_HWC / 255) ** (1 / 2.2)
    assert np.abs(light.image_HWC - expected).max() <= 3
    if dark.alpha_HW is not None:
        np.testing.assert_array_equal(light.alpha_HW, dark.alpha_HW)


@pytest.mark.parametrize("gamma", [0.45455, 0.45, 0.4545, 0.46])
@pytest.mark.parametrize("chromaticities", [None, SRGB_CHROMATICITIES])
def test_the_usual_gamma_means_srgb(gamma: float, chromaticities: tuple[float, ...] | None) -> None:
    chunks = [gamma_chunk(gamma)] + ([chromaticity_chunk(*chromaticities)] if chromaticities else [])
    source = decode(png_with(save(picture("RGB"), "PNG"), *chunks), OPTIONS)
    np.testing.assert_array_equal(source.image_HWC, RGB_HWC)
    assert source.notes == ()
    assert not source.had_profile


def test_gamma_with_the_chromaticities_of_another_space_is_converted() -> None:
    source = decode(flat_png(COLOR, gamma_chunk(0.45455), chromaticity_chunk(*P3_CHROMATICITIES)), OPTIONS)
    expected = as_srgb(XYZ_TO_SRGB @ P3_TO_XYZ @ (np.array(COLOR) / 255) ** 2.2)
    assert np.abs(source.image_HWC[4, 4] - expected).max() <= 2


@pytest.mark.parametrize(
    "chunks",
    [
        [gamma_chunk(0)],
        [gamma_chunk(21474.8)],
        [(b"gAMA", b"\0\0\xb1\x8f"), chromaticity_chunk(0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3)],
        [(b"gAMA", b"\0\0\xb1\x8f"), chromaticity_chunk(0, 0, 0, 0, 0, 0, 0, 0)],
        [(b"gAMA", b"\0\0\xb1\x8f"), chromaticity_chunk(0.9, 0.05, *SRGB_CHROMATICITIES[2:])],
        [chromaticity_chunk(*P3_CHROMATICITIES)],
        [(b"cICP", b"\x01\x0d\x06\x01")],
        [(b"cICP", b"\x01\x0d")],
    ],
)
def test_statements_without_sense_are_ignored_with_a_note(chunks: list[tuple[bytes, bytes]]) -> None:
    source = decode(png_with(save(picture("RGB"), "PNG"), *chunks), OPTIONS)
    np.testing.assert_array_equal(source.image_HWC, RGB_HWC)
    assert len(source.notes) == 1
    assert "ignored" in source.notes[0]


def test_a_statement_without_sense_leaves_the_word_to_the_next_one() -> None:
    source = decode(flat_png((255, 255, 188), cicp_chunk(1, 99), gamma_chunk(0.625)), OPTIONS)
    assert tuple(source.image_HWC[4, 4]) == (255, 255, 204)
    assert len(source.notes) == 1


def test_a_profile_that_cannot_be_unpacked_leaves_the_word_to_the_next_statement() -> None:
    source = decode(flat_png((255, 255, 188), (b"iCCP", b"name\0\0not zlib"), gamma_chunk(0.625)), OPTIONS)
    assert tuple(source.image_HWC[4, 4]) == (255, 255, 204)
    assert source.notes == ("its ICC profile was ignored because it is damaged",)


def test_narrow_range_is_noted() -> None:
    source = decode(flat_png(COLOR, cicp_chunk(12, 13, full_range=0), gamma_chunk(1.0)), OPTIONS)
    assert np.abs(source.image_HWC[4, 4] - converted(COLOR, 12)).max() <= 2
    assert source.notes == ("its samples of narrow range were taken as full range",)


def gray_profile() -> bytes:
    """A profile of linear gray, drawn by code."""
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061)
    curve = b"curv\0\0\0\0" + struct.pack(">I", 1) + struct.pack(">H", 256) + b"\0\0"
    start = 128 + 4 + 24
    directory = struct.pack(">I", 2) + struct.pack(">4sII4sII", b"wtpt", start, 20, b"kTRC", start + 20, 14)
    header = bytearray(128)
    struct.pack_into(">I4xI4s4s4s", header, 0, start + 36, 0x02400000, b"mntr", b"GRAY", b"XYZ ")
    header[36:40] = b"acsp"
    struct.pack_into(">3i", header, 68, 63190, 65536, 54061)
    return bytes(header) + directory + white + curve


GRAY = Image.new("L", (16, 16), 64)


@pytest.mark.parametrize(
    "data",
    [
        save(GRAY, "PNG", icc_profile=gray_profile()),
        save(GRAY.convert("LA"), "PNG", icc_profile=gray_profile()),
        save(GRAY, "PNG", icc_profile=gray_profile(), transparency=7),
        save(GRAY.convert("1"), "PNG", icc_profile=gray_profile(), transparency=1),
        save(GRAY.convert("RGB"), "PNG", icc_profile=gray_profile()),
        save(GRAY.convert("RGBA"), "PNG", icc_profile=gray_profile()),
        save(GRAY, "WEBP", lossless=True, icc_profile=gray_profile()),
        save(GRAY, "WEBP", quality=95, icc_profile=gray_profile()),
        save(GRAY, "AVIF", quality=95, icc_profile=gray_profile()),
        save(GRAY.convert("LA"), "AVIF", quality=95, icc_profile=gray_profile()),
        save(GRAY, "TIFF", icc_profile=gray_profile()),
        save(GRAY, "JPEG", quality=95, icc_profile=gray_profile()),
    ],
)
def test_a_gray_profile_is_used_for_gray_however_it_is_handed_over(data: bytes) -> None:
    source = decode(data, OPTIONS)
    assert source.notes == ()
    if source.source_mode != "1":
        assert np.abs(source.image_HWC.astype(int) - 137).max() <= 1


def test_a_gray_profile_is_ignored_for_colours() -> None:
    source = decode(save(picture("RGB"), "PNG", icc_profile=gray_profile()), OPTIONS)
    np.testing.assert_array_equal(source.image_HWC, RGB_HWC)
    assert source.notes == ("its ICC profile was ignored because it is for GRAY, not for RGB",)
