from __future__ import annotations

import numpy as np
import pytest

from stylemill.errors import ImageError
from stylemill.images.decode import decode
from stylemill.images.options import DecodeOptions
from tests.unit.images.drawn import HEIGHT, RGB_HWC, WIDTH, animation, picture, save

OPTIONS = DecodeOptions()
ALL_FRAMES = DecodeOptions(animation="all")


@pytest.mark.parametrize("image_format", ["GIF", "WEBP", "PNG", "AVIF"])
def test_the_first_frame_is_decoded_with_a_note(image_format: str) -> None:
    source = decode(animation(image_format), OPTIONS)
    assert source.notes == ("first of 3 frames",)
    assert source.frames == ()
    assert source.alpha_HW is not None
    assert (source.alpha_HW[:3, :4] < 5).all()
    assert (source.alpha_HW[5:, 5:] == 255).all()


@pytest.mark.parametrize("image_format", ["GIF", "WEBP", "PNG", "AVIF"])
def test_all_frames_are_decoded_with_their_timing(image_format: str) -> None:
    source = decode(animation(image_format), ALL_FRAMES)
    assert [frame.duration_ms for frame in source.frames] == [40, 70, 100]
    assert source.notes == ()
    assert source.loop == (None if image_format == "AVIF" else 3)
    for index, frame in enumerate(source.frames):
        assert frame.alpha_HW is not None
        assert (frame.alpha_HW[: 3 + index, :4] < 5).all()
        assert (frame.alpha_HW[6:, 6:] == 255).all()
        assert np.abs(frame.image_HWC[10, 10].astype(int) - np.eye(3)[index] * 200).max() < 12
    np.testing.assert_array_equal(source.frames[0].image_HWC, source.image_HWC)


@pytest.mark.parametrize("image_format", ["GIF", "WEBP", "PNG", "AVIF"])
def test_opaque_animations_have_no_alpha(image_format: str) -> None:
    source = decode(animation(image_format, opaque=True), ALL_FRAMES)
    assert source.alpha_HW is None
    assert [frame.alpha_HW for frame in source.frames] == [None] * 3


def test_the_image_for_viewers_without_animation_is_not_a_frame() -> None:
    data = animation("PNG", default_image=True)
    assert len(decode(data, ALL_FRAMES).frames) == 2


def test_pages_of_a_document_are_counted() -> None:
    pages = [picture("RGB"), picture("L"), picture("1")]
    source = decode(save(pages[0], "TIFF", save_all=True, append_images=pages[1:]), ALL_FRAMES)
    assert source.notes == ("first of 3 pages",)
    np.testing.assert_array_equal(source.image_HWC, RGB_HWC)


def test_frames_count_together_against_the_pixel_limit() -> None:
    data = animation("GIF", num_frames=5)
    few = DecodeOptions(animation="all", max_pixels=WIDTH * HEIGHT * 5 - 1)
    with pytest.raises(ImageError, match="5 frames of 23 x 14 px"):
        decode(data, few)
    assert decode(data, DecodeOptions(max_pixels=few.max_pixels)).width_px == WIDTH
