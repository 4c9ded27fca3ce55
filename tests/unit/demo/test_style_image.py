from __future__ import annotations

import numpy as np
import pytest

from stylemill.demo.style_image import draw_style_image


@pytest.fixture(scope="module")
def painting_HWC() -> np.ndarray:
    image = draw_style_image(side_px=256)
    assert image.mode == "RGB"
    assert image.size == (256, 256)
    return np.asarray(image)


def test_same_arguments_give_the_same_picture(painting_HWC):
    assert np.array_equal(np.asarray(draw_style_image(side_px=256)), painting_HWC)


def test_another_seed_moves_the_strokes(painting_HWC):
    other_HWC = np.asarray(draw_style_image(side_px=256, seed=8))
    assert (other_HWC != painting_HWC).mean() > 0.5


def test_the_contrast_is_high_enough_for_a_style(painting_HWC):
    luma = painting_HWC @ np.array([0.299, 0.587, 0.114])
    assert np.percentile(luma, 98) - np.percentile(luma, 2) > 170.0


def test_blue_sky_above_and_warm_fields_below(painting_HWC):
    red, _, blue = np.moveaxis(painting_HWC.astype(float), -1, 0)
    cold, warm = blue > red + 30.0, red > blue + 30.0
    assert cold[: 256 // 2].mean() > 0.5
    assert warm[: 256 // 2].mean() > 0.1, "stars and accents"
    assert warm[-256 // 8 :].mean() > 0.7
    assert cold[-256 // 8 :].mean() > 0.05, "accents"


def test_strokes_run_along_the_flow_of_the_fields(painting_HWC):
    """Near the lower edge strokes lie rather flat: the tone changes faster downwards than sideways."""
    luma = (painting_HWC @ np.array([0.299, 0.587, 0.114]))[-256 // 8 :, 256 // 2 :]
    assert np.abs(np.diff(luma, axis=0)).mean() > 1.3 * np.abs(np.diff(luma, axis=1)).mean()


def test_too_small_a_canvas_is_refused():
    with pytest.raises(ValueError, match="at least 64"):
        draw_style_image(side_px=63)
