from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image

from stylemill.errors import ImageError
from stylemill.images.decode import decode
from stylemill.images.formats.gif_frames import read_gif
from stylemill.images.options import DecodeOptions
from stylemill.images.source_image import Frame
from tests.unit.images.drawn import animation, save

FIRST, ALL = DecodeOptions(), DecodeOptions(animation="all")
PALETTE = bytes((0, 0, 0, 200, 10, 20, 30, 180, 40, 50, 60, 220))
BLACK, RED, GREEN, BLUE = (tuple(PALETTE[at : at + 3]) for at in range(0, 12, 3))
SIDE = 12


def frame(
    box: tuple[int, int, int, int], index: int, *, disposal: int = 0, transparent: int | None = None, hole: bool = False
) -> bytes:
    """A frame of one colour, with a transparent pixel in its first corner if it has a hole."""
    left, top, right, bottom = box
    indices = np.full((bottom - top, right - left), index, np.uint8)
    if hole:
        indices[0, 0] = 3
    image = Image.fromarray(indices, "L").convert("P")
    image.putdata(indices.reshape(-1).tolist())
    image.putpalette(PALETTE)
    data = save(image, "GIF", optimize=False)
    colors_end = 13 + (3 << ((data[10] & 7) + 1)) if data[10] & 0x80 else 13
    at = data.index(b",", colors_end)
    flags = disposal << 2 | (transparent is not None)
    control = b"!\xf9\x04" + struct.pack("<BHBB", flags, 7, transparent or 0, 0)
    descriptor = b"," + struct.pack("<4HB", left, top, right - left, bottom - top, 0)
    return control + descriptor + data[at + 10 : -1]


def gif(*frames: bytes, background: int = 1) -> bytes:
    return b"GIF89a" + struct.pack("<HHBBB", SIDE, SIDE, 0x81, background, 0) + PALETTE + b"".join(frames) + b";"


def colors(shown: Frame) -> np.ndarray:
    """Colour of each pixel, -1 where it is transparent."""
    if shown.alpha_HW is None:
        return shown.image_HWC.astype(int)
    return np.where(shown.alpha_HW[..., None] == 255, shown.image_HWC.astype(int), -1)


WHOLE, INNER, CORNER = (0, 0, SIDE, SIDE), (3, 2, 9, 8), (0, 0, 4, 4)


@pytest.mark.parametrize("transparent", [None, 3])
@pytest.mark.parametrize("options", [FIRST, ALL])
@pytest.mark.parametrize("more", [0, 1])
def test_outside_a_small_first_frame_nothing_is_shown(
    transparent: int | None, options: DecodeOptions, more: int
) -> None:
    data = gif(*[frame(INNER, 1, transparent=transparent)] * (1 + more))
    source = decode(data, options)
    assert source.alpha_HW is not None
    inside = np.zeros((SIDE, SIDE), bool)
    inside[2:8, 3:9] = True
    assert (source.alpha_HW[inside] == 255).all()
    assert (source.alpha_HW[~inside] == 0).all()
    assert (source.image_HWC[inside] == RED).all()


def test_a_first_frame_of_the_whole_canvas_is_opaque() -> None:
    assert decode(gif(frame(WHOLE, 1)), FIRST).alpha_HW is None
    assert decode(gif(frame(WHOLE, 1), frame(INNER, 2)), ALL).alpha_HW is None


def test_what_no_frame_has_painted_stays_transparent_until_one_does() -> None:
    source = decode(gif(frame(INNER, 1), frame(CORNER, 2), frame(WHOLE, 3)), ALL)
    first, second, third = (colors(shown) for shown in source.frames)
    assert (first[0, 0] == -1).all()
    assert (second[0, 0] == GREEN).all()
    assert (second[7, 8] == RED).all()
    assert (second[11, 11] == -1).all()
    assert (third == BLUE).all()
    assert [shown.duration_ms for shown in source.frames] == [70, 70, 70]


@pytest.mark.parametrize("transparent", [None, 3])
def test_a_cleared_area_is_transparent_whatever_the_background_colour_is(transparent: int | None) -> None:
    data = gif(
        frame(WHOLE, 1, disposal=1),
        frame(INNER, 2, disposal=2, transparent=transparent),
        frame(CORNER, 2, transparent=transparent),
    )
    *_, last = (colors(shown) for shown in decode(data, ALL).frames)
    assert (last[7, 8] == -1).all()
    assert (last[11, 11] == RED).all()
    assert (last[0, 0] == GREEN).all()


def test_a_restored_area_is_as_before_the_frame() -> None:
    data = gif(frame(WHOLE, 1), frame(INNER, 2, disposal=3), frame(CORNER, 3, transparent=3))
    first, second, third = (colors(shown) for shown in decode(data, ALL).frames)
    assert (second[5, 5] == GREEN).all()
    np.testing.assert_array_equal(third, first)


def test_a_disposal_is_for_its_own_frame_only() -> None:
    data = gif(frame(WHOLE, 1, disposal=2), frame(WHOLE, 2, disposal=0), frame(CORNER, 3))
    *_, last = (colors(shown) for shown in decode(data, ALL).frames)
    assert (last[11, 11] == GREEN).all()


def test_through_a_transparent_pixel_the_frame_before_is_seen() -> None:
    data = gif(frame(WHOLE, 1), frame(INNER, 2, transparent=3, hole=True))
    _, second = (colors(shown) for shown in decode(data, ALL).frames)
    assert (second[2, 3] == RED).all()
    assert (second[2, 4] == GREEN).all()


def test_a_later_frame_beyond_the_canvas_is_cut_off() -> None:
    source = decode(gif(frame(WHOLE, 1), frame((8, 8, SIDE + 9, SIDE + 9), 2)), ALL)
    assert {shown.image_HWC.shape for shown in source.frames} == {(SIDE, SIDE, 3)}
    assert (source.frames[1].image_HWC[11, 11] == GREEN).all()


def test_stray_bytes_between_blocks_are_skipped() -> None:
    source = decode(gif(frame(INNER, 1), b"\0\0stray", frame(WHOLE, 2)), ALL)
    assert (colors(source.frames[1]) == GREEN).all()


def test_a_later_frame_is_held_to_the_limit_of_pixels() -> None:
    huge = b",\0\0\0\0\xff\xff\xff\xff\0\x02\x01\x2c\0"
    with pytest.raises(ImageError, match="with its frame 2 of 65535 x 65535 px"):
        decode(gif(frame(WHOLE, 1), huge), DecodeOptions(animation="all", max_pixels=10_000))


def test_frames_beyond_the_canvas_are_held_to_the_limit_together() -> None:
    large = frame((0, 0, 60, 60), 2)
    data = gif(frame(WHOLE, 1), *[large] * 3)
    limit = SIDE * SIDE + 3 * 60 * 60
    assert len(decode(data, DecodeOptions(animation="all", max_pixels=limit)).frames) == 4
    with pytest.raises(ImageError, match="with its frame 4") as refused:
        decode(data, DecodeOptions(animation="all", max_pixels=limit - 1))
    assert refused.value.error_type == "TooManyPixels"
    assert decode(data, DecodeOptions(max_pixels=SIDE * SIDE)).image_HWC.shape == (SIDE, SIDE, 3)


def test_a_first_frame_beyond_the_canvas_is_held_to_the_limit() -> None:
    data = gif(frame((0, 0, 60, 60), 2), frame(WHOLE, 1))
    for animation_kind in ("first", "all"):
        with pytest.raises(ImageError) as refused:
            decode(data, DecodeOptions(animation=animation_kind, max_pixels=60 * 60 - 1))
        assert refused.value.error_type == "TooManyPixels"


def test_frames_that_pillow_composes_rightly_are_the_same() -> None:
    for data in (animation("GIF"), animation("GIF", opaque=True), animation("GIF", interlace=1)):
        image = Image.open(io.BytesIO(data))
        for index, shown in enumerate(decode(data, ALL).frames):
            image.seek(index)
            expected = np.asarray(image.convert("RGBA"))
            alpha_HW = np.full(expected.shape[:2], 255) if shown.alpha_HW is None else shown.alpha_HW
            np.testing.assert_array_equal(alpha_HW, expected[..., 3])
            visible = expected[..., 3] == 255
            np.testing.assert_array_equal(shown.image_HWC[visible], expected[..., :3][visible])


def test_damaged_files_end_the_frames_and_raise_nothing_else() -> None:
    rng = np.random.default_rng(0)
    whole = gif(frame(INNER, 1), frame(CORNER, 2, disposal=3, transparent=3), frame(WHOLE, 3))
    for length in range(len(whole)):
        assert len(list(read_gif(whole[:length]))) <= 3
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(3):
            damaged[rng.integers(6, len(damaged))] = rng.integers(256)
        try:
            decode(bytes(damaged), DecodeOptions(animation="all", max_pixels=1 << 20))
        except ImageError as error:
            assert str(error)
