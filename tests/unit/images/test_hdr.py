from __future__ import annotations

import struct

import numpy as np
import pytest
from PIL import Image

from stylemill.images.decode import decode
from stylemill.images.options import DecodeOptions

from .drawn import ALPHA_HW, RGB_HWC, save
from .stated import (
    BT2020_TO_XYZ,
    P3_TO_XYZ,
    XYZ_TO_SRGB,
    avif_with_code_points,
    cicp_chunk,
    png_with,
    srgb_light,
)

OPTIONS = DecodeOptions()
WHITE_CD_M2 = 203
PQ, HLG = 16, 18
TO_XYZ = {9: BT2020_TO_XYZ, 12: P3_TO_XYZ}


def pq_samples(light_cd_m2: np.ndarray) -> np.ndarray:
    """The inverse EOTF of SMPTE ST 2084, as 8-bit samples."""
    power = (np.maximum(light_cd_m2, 0) / 10_000) ** 0.1593017578125
    return np.rint(255 * ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375).astype(np.uint8)


def in_pq(image_HWC: np.ndarray, primaries: int) -> np.ndarray:
    """An sRGB picture whose white has the reference brightness, in PQ."""
    light = srgb_light(image_HWC) @ np.linalg.inv(XYZ_TO_SRGB).T @ np.linalg.inv(TO_XYZ[primaries]).T
    return pq_samples(light * WHITE_CD_M2)


def light_level(max_cd_m2: float) -> tuple[bytes, bytes]:
    return b"cLLI", struct.pack(">II", round(max_cd_m2 * 10_000), 0)


def png_in_pq(image_HWC: np.ndarray, primaries: int, *chunks: tuple[bytes, bytes]) -> bytes:
    return png_with(save(Image.fromarray(in_pq(image_HWC, primaries)), "PNG"), cicp_chunk(primaries, PQ), *chunks)


@pytest.mark.parametrize("primaries", sorted(TO_XYZ))
def test_a_pq_picture_no_brighter_than_white_becomes_its_sdr_twin(primaries: int) -> None:
    source = decode(png_in_pq(RGB_HWC, primaries, light_level(WHITE_CD_M2)), OPTIONS)
    # 8 bits of PQ are coarse: two samples are up to 5 levels of sRGB apart, more where the gamut is left.
    difference = np.abs(source.image_HWC.astype(int) - RGB_HWC)
    assert difference.mean() < 3
    assert (difference > 16).mean() < 0.02
    assert source.had_profile
    assert source.notes == ("high dynamic range (PQ) was mapped to sRGB",)


def test_dark_parts_stay_and_bright_parts_are_compressed_in_order() -> None:
    ramp_cd_m2 = np.array([0, 1, 10, 50, 203, 400, 700, 1000, 4000, 10_000])
    samples = np.repeat(pq_samples(ramp_cd_m2)[None, :, None], 3, axis=2)
    data = png_with(save(Image.fromarray(samples), "PNG"), cicp_chunk(9, PQ))
    gray = decode(data, OPTIONS).image_HWC[0].astype(int)
    assert (np.abs(gray - gray[:, :1]) <= 1).all()
    levels = gray[:, 0]
    assert (np.diff(levels) >= 0).all()
    assert levels[0] == 0
    light = ramp_cd_m2[1:4] / WHITE_CD_M2
    expected = 255 * np.where(light < 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    assert np.abs(levels[1:4] - expected).max() <= 4
    assert 200 < levels[4] < levels[5] < levels[6] <= levels[7]
    assert (levels[7:] >= 254).all()


def test_a_bright_colour_keeps_its_hue() -> None:
    light = np.array([[[400.0, 100.0, 100.0]]]) @ np.linalg.inv(XYZ_TO_SRGB).T @ np.linalg.inv(BT2020_TO_XYZ).T
    data = png_with(save(Image.fromarray(pq_samples(light).repeat(8, 0).repeat(8, 1)), "PNG"), cicp_chunk(9, PQ))
    red, green, blue = srgb_light(decode(data, OPTIONS).image_HWC[4, 4].astype(float))
    assert red / green == pytest.approx(4, rel=0.15)
    assert red / blue == pytest.approx(4, rel=0.15)


def test_hlg_is_mapped_with_its_reference_white_near_white() -> None:
    ramp = np.array([0, 64, 128, 191, 255], np.uint8)
    data = png_with(save(Image.fromarray(np.repeat(ramp[None, :, None], 3, axis=2)), "PNG"), cicp_chunk(9, HLG))
    source = decode(data, OPTIONS)
    levels = source.image_HWC[0, :, 0].astype(int)
    assert source.notes == ("high dynamic range (HLG) was mapped to sRGB",)
    assert levels[0] == 0
    assert levels[-1] == 255
    assert (np.diff(levels) > 10).all()
    assert 205 < levels[3] < 245  # a sample of 75 % is the reference white, 203 of 1000 cd/m2


def test_an_avif_in_pq_is_mapped_and_keeps_its_alpha() -> None:
    pixels = np.dstack([in_pq(np.full_like(RGB_HWC, 120), 9), ALPHA_HW])
    data = save(Image.fromarray(pixels), "AVIF", quality=100, subsampling="4:4:4")
    plain = decode(data, OPTIONS)
    source = decode(avif_with_code_points(data, 9, PQ), OPTIONS)
    assert np.abs(source.image_HWC.astype(int) - 120).max() <= 10
    np.testing.assert_array_equal(source.alpha_HW, plain.alpha_HW)
