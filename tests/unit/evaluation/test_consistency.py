"""Measures of how alike a style paints a series."""

from __future__ import annotations

import numpy as np
import pytest

from stylemill.evaluation.consistency import crop_difference, overlapping_crops, strokes
from stylemill.evaluation.image_metrics import palette
from tests.drawn import drawn_image


@pytest.mark.parametrize("size", [(64, 64), (80, 203), (400, 96)])
def test_the_crops_overlap_and_are_shifted_by_whole_cells_of_the_network(size):
    image_HWC = drawn_image(*size)
    left, right, shift_px = overlapping_crops(image_HWC)
    assert shift_px % 4 == 0 and shift_px > 0 and left.shape == right.shape
    np.testing.assert_array_equal(left[:, shift_px:], right[:, :-shift_px])


@pytest.mark.parametrize("size", [(64, 64), (200, 300)])
def test_what_paints_every_pixel_by_itself_paints_crops_alike_and_what_looks_at_the_whole_does_not(size):
    image_HWC = drawn_image(*size)
    assert crop_difference(lambda crop_HWC: 255 - crop_HWC, image_HWC) == 0

    def by_its_mean(crop_HWC):
        return np.full_like(crop_HWC, int(crop_HWC[:, : crop_HWC.shape[1] // 3].mean()))

    assert crop_difference(by_its_mean, image_HWC) > 1


def test_borders_do_not_count():
    def with_a_frame(crop_HWC):
        framed_HWC = crop_HWC.copy()
        framed_HWC[:8], framed_HWC[-8:], framed_HWC[:, :8], framed_HWC[:, -8:] = 0, 0, 0, 0
        return framed_HWC

    assert crop_difference(with_a_frame, drawn_image(200, 300)) == 0


def test_the_palette_is_the_mean_colour_and_strokes_have_scales():
    grey = np.full((64, 64, 3), 119, np.uint8)
    assert palette(grey) == pytest.approx([50, 0, 0], abs=0.2)
    lines = {}
    for period_px in (2, 16):
        columns_W = np.where(np.arange(64) % period_px < period_px // 2, 200, 50).astype(np.uint8)
        lines[period_px] = strokes(np.broadcast_to(columns_W[None, :, None], (64, 64, 3)))
    assert lines[2].argmax() == 0 and lines[16].argmax() >= 2
    assert strokes(grey).max() < lines[16].min()
