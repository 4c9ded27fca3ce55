from __future__ import annotations

import contextlib
import time

import numpy as np
import pytest

from stylemill.errors import ImageError
from stylemill.images.decode import decode
from stylemill.images.formats.xpm import with_plain_colours
from stylemill.images.options import DecodeOptions

OPTIONS = DecodeOptions()
RED = (255, 0, 0)


def xpm(color: str, *, before_colors: str = "", before_rows: str = "", indent: str = "", end: str = "\n") -> bytes:
    """A picture of 2 x 2 px, in whose first and last pixel there is a colour, elsewhere red."""
    lines = ["/* XPM */", "static char *a[] = {", '"2 2 2 1",', before_colors, f'{indent}"a {color}",']
    lines += [f'{indent}"b\tc #ff0000",', before_rows, f'{indent}"ab",', f'{indent}"ba"', "};", ""]
    return end.join(line for line in lines if line).encode()


@pytest.mark.parametrize(
    ("color", "expected"),
    [
        ("c #010203", (1, 2, 3)),
        ("c #0F8", (0, 255, 136)),
        ("c #000800fff", (0, 128, 255)),
        ("c #00008080ffff", (0, 128, 255)),
        ("c black", (0, 0, 0)),
        ("c Dark Slate Gray", (47, 79, 79)),
        ("c green", (0, 255, 0)),
        ("c gray", (190, 190, 190)),
        ("c gray50", (127, 127, 127)),
        ("c gray70", (179, 179, 179)),
        ("c grey100", (255, 255, 255)),
        ("s c m black c #010203", (1, 2, 3)),
        ("s background m white g4 gray50 c RoyalBlue", (65, 105, 225)),
        ("m white", (255, 255, 255)),
        ("m black g #777777", (119, 119, 119)),
    ],
)
def test_colours_are_those_of_x11(color: str, expected: tuple[int, int, int]) -> None:
    source = decode(xpm(color), OPTIONS)
    assert [tuple(pixel) for pixel in source.image_HWC.reshape(-1, 3).tolist()] == [expected, RED, RED, expected]
    assert source.alpha_HW is None


@pytest.mark.parametrize("color", ["c None", "s mask c none", "m none"])
def test_no_colour_is_transparent(color: str) -> None:
    source = decode(xpm(color), OPTIONS)
    assert source.alpha_HW is not None
    assert source.alpha_HW.tolist() == [[0, 255], [255, 0]]


@pytest.mark.parametrize(
    "layout",
    [
        {"before_colors": "/* colors */"},
        {"before_rows": "/* pixels */"},
        {"before_colors": '/* a "quoted" remark\n over two lines */', "before_rows": "/* rows */"},
        {"indent": "  "},
        {"indent": "\t", "end": "\r\n"},
        {"end": " "},
    ],
)
def test_remarks_and_layout_do_not_matter(layout: dict[str, str]) -> None:
    source = decode(xpm("c #010203", **layout), OPTIONS)
    np.testing.assert_array_equal(source.image_HWC, decode(xpm("c #010203"), OPTIONS).image_HWC)


def test_signs_may_look_like_remarks_and_keys() -> None:
    rows = b'/* XPM */\nstatic char *a[] = {\n"2 1 2 2",\n"/* c #010203",\n"c  c #040506",\n"/*c "\n};\n'
    assert decode(rows, OPTIONS).image_HWC.tolist() == [[[1, 2, 3], [4, 5, 6]]]


@pytest.mark.parametrize("color", ["c no such colour", "c", "", "s name", "c #12", "c #xyz", "c gray101"])
def test_a_colour_that_is_not_known_is_not_guessed(color: str) -> None:
    with pytest.raises(ImageError):
        decode(xpm(color), OPTIONS)


def test_damaged_files_are_left_as_they_are_and_take_no_time() -> None:
    whole = xpm("c #010203", before_rows="/* pixels */")
    for length in range(len(whole) - 6):
        assert with_plain_colours(whole[:length]) == whole[:length]
    start = time.perf_counter()
    for part in (b"/*", b'"', b'"9 9 9 9"', b'"1 1 99999999 1",'):
        data = b"/* XPM */" + part * 200_001
        with contextlib.suppress(ImageError):
            with_plain_colours(data)
    assert time.perf_counter() - start < 5
    rng = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(3):
            damaged[rng.integers(9, len(damaged))] = rng.integers(256)
        try:
            decode(bytes(damaged), DecodeOptions(max_pixels=1 << 20))
        except ImageError as error:
            assert str(error)
