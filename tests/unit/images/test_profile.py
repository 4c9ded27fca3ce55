from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageCms

from stylemill.images.decode import decode
from stylemill.images.options import DecodeOptions
from tests.drawn import wide_gamut_profile
from tests.unit.images.drawn import ALPHA_HW, RGB_HWC, picture, save

OPTIONS = DecodeOptions()


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "TIFF", "WEBP", "AVIF"])
def test_a_profile_is_converted_to_srgb(image_format: str) -> None:
    flat = Image.new("RGB", (32, 32), (60, 180, 90))
    source = decode(save(flat, image_format, quality=95, icc_profile=wide_gamut_profile()), OPTIONS)
    profiles = [ImageCms.ImageCmsProfile(io.BytesIO(wide_gamut_profile())), ImageCms.createProfile("sRGB")]
    expected = ImageCms.profileToProfile(flat, *profiles, renderingIntent=1).getpixel((0, 0))  # type: ignore[union-attr]
    assert source.had_profile
    assert source.notes == ()
    assert np.abs(source.image_HWC[16, 16].astype(int) - expected).max() <= 4
    assert source.image_HWC[16, 16, 0] < 45  # the colour did change: red leaves the smaller gamut


@pytest.mark.parametrize("image_format", ["PNG", "TIFF"])
def test_alpha_is_not_converted(image_format: str) -> None:
    source = decode(save(picture("RGBA"), image_format, icc_profile=wide_gamut_profile()), OPTIONS)
    np.testing.assert_array_equal(source.alpha_HW, ALPHA_HW)
    assert (source.image_HWC != RGB_HWC).any()


INKS_LAB = {
    "paper": (100, 0, 0),
    "cyan": (55, -37, -50),
    "magenta": (48, 74, -3),
    "yellow": (89, -5, 93),
    "black": (16, 0, 0),
}


def ink_profile() -> bytes:
    """A profile of a printing press, drawn by code: a table of what Lab colour each overprint of full inks has."""
    table = bytearray()
    for index in range(16):
        inks = [name for bit, name in enumerate(("black", "yellow", "magenta", "cyan")) if index >> bit & 1]
        layers = np.array([INKS_LAB[name] for name in inks] or [INKS_LAB["paper"]], float)
        lightness = 100 * np.prod(layers[:, 0] / 100)
        table += bytes((round(lightness * 2.55), *(int(128 + layers[:, axis].mean()) for axis in (1, 2))))
    ramp = bytes(range(256))
    identity = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    lut = b"mft1\0\0\0\0" + bytes((4, 3, 2, 0)) + identity + ramp * 4 + bytes(table) + ramp * 3
    lut += bytes(-len(lut) % 4)
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061)
    tags = {b"A2B0": lut, b"wtpt": white}
    offset = 128 + 4 + 12 * len(tags)
    directory, body = struct.pack(">I", len(tags)), b""
    for name, content in tags.items():
        directory += struct.pack(">4sII", name, offset + len(body), len(content))
        body += content
    header = bytearray(128)
    struct.pack_into(">I4xI4s4s4s", header, 0, offset + len(body), 0x02400000, b"prtr", b"CMYK", b"Lab ")
    header[36:40] = b"acsp"
    struct.pack_into(">3i", header, 68, 63190, 65536, 54061)
    return bytes(header) + directory + body


@pytest.mark.parametrize("image_format", ["JPEG", "TIFF"])
@pytest.mark.parametrize("ink", sorted(INKS_LAB))
def test_cmyk_with_a_profile_is_rendered_by_it(image_format: str, ink: str) -> None:
    inks = tuple(255 * (name == ink) for name in ("cyan", "magenta", "yellow", "black"))
    source = decode(save(Image.new("CMYK", (16, 16), inks), image_format, icc_profile=ink_profile()), OPTIONS)
    lightness, a, b = INKS_LAB[ink]
    lab = Image.new("LAB", (1, 1), (round(lightness * 2.55), a + 128, b + 128))
    profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    expected = np.asarray(ImageCms.buildTransform(*profiles, "LAB", "RGB").apply(lab)).astype(int)
    assert source.notes == ()
    # Black point compensation makes the darkest ink of the press the darkest colour of the screen.
    tolerance = 48 if ink == "black" else 16
    assert np.abs(source.image_HWC[8, 8] - expected).max() <= tolerance


def test_srgb_under_any_name_changes_nothing() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    source = decode(save(picture("RGB"), "PNG", icc_profile=profile), OPTIONS)
    np.testing.assert_array_equal(source.image_HWC, RGB_HWC)


@pytest.mark.parametrize("profile", [b"not a profile", b"\0" * 200, wide_gamut_profile()[:300]])
def test_a_damaged_profile_is_ignored_with_a_note(profile: bytes) -> None:
    source = decode(save(picture("RGB"), "PNG", icc_profile=profile), OPTIONS)
    np.testing.assert_array_equal(source.image_HWC, RGB_HWC)
    assert len(source.notes) == 1
    assert "ICC profile was ignored" in source.notes[0]


def test_a_profile_for_another_mode_is_ignored_with_a_note() -> None:
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    source = decode(save(picture("RGB"), "PNG", icc_profile=lab), OPTIONS)
    np.testing.assert_array_equal(source.image_HWC, RGB_HWC)
    assert "for Lab, not for RGB" in source.notes[0]


def test_a_gray_picture_under_an_rgb_profile_is_converted() -> None:
    source = decode(save(picture("L"), "PNG", icc_profile=wide_gamut_profile()), OPTIONS)
    assert source.notes == ()
    assert source.had_profile


def test_the_profile_is_the_same_in_every_process_and_second() -> None:
    import hashlib
    import subprocess
    import sys

    from stylemill.images.profile import srgb_profile

    code = "from stylemill.images.profile import *; import hashlib; print(hashlib.sha256(srgb_profile()).hexdigest())"
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert there == hashlib.sha256(srgb_profile()).hexdigest()
