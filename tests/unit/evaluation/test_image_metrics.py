"""Colour shift, structural similarity and grid energy."""

from __future__ import annotations

import numpy as np
import pytest

from stylemill.evaluation.image_metrics import checkerboard, color_shift, grid_energy, structural_similarity
from tests.drawn import drawn_image

NAMES = ("columns_2px", "rows_2px", "both_2px", "columns_4px", "rows_4px", "both_4px")
NAMES += ("columns_8_thirds_px", "rows_8_thirds_px")


def pink_image(height_px: int = 200, width_px: int = 260, seed: int = 3) -> np.ndarray:
    """Return noise with the spectrum of photographs."""
    rng = np.random.default_rng(seed)
    down, across = np.fft.fftfreq(height_px)[:, None], np.fft.fftfreq(width_px)
    fall = np.maximum(np.hypot(down, across), 1 / width_px)[..., None]
    image_HWC = np.fft.ifft2(
        np.fft.fft2(rng.normal(size=(height_px, width_px, 3)), axes=(0, 1)) / fall, axes=(0, 1)
    ).real
    return (128 + 40 * image_HWC / image_HWC.std()).clip(0, 255).astype(np.uint8)


def with_waves(image_HWC: np.ndarray, per_row: float, per_column: float, amplitude: float = 3.0) -> np.ndarray:
    """Add a wave of so many periods a row and column whose sign changes from place to place."""
    y, x = np.mgrid[: image_HWC.shape[0], : image_HWC.shape[1]]
    sign = np.where((y // 90 + x // 90) % 2, 1.0, -1.0)
    wave = amplitude * sign * np.cos(2 * np.pi * (per_row * y + per_column * x))
    return (image_HWC + wave[..., None]).round().clip(0, 255).astype(np.uint8)


def test_a_natural_spectrum_has_no_grid():
    energy = grid_energy(pink_image())
    assert all(0.5 < getattr(energy, name) < 2 for name in NAMES)


@pytest.mark.parametrize(
    ("per_row", "per_column", "name"),
    [(0, 0.5, "columns_2px"), (0.5, 0, "rows_2px"), (0.5, 0.5, "both_2px"), (0, 0.25, "columns_4px"),
     (0.25, 0, "rows_4px"), (0.25, 0.25, "both_4px"), (0.25, -0.25, "both_4px"),
     (0, 0.375, "columns_8_thirds_px"), (0.375, 0, "rows_8_thirds_px")],
)  # fmt: skip
def test_a_faint_grid_is_found_where_it_is_and_nowhere_else(per_row, per_column, name):
    clean = pink_image()
    energy = grid_energy(with_waves(clean, per_row, per_column)).over(grid_energy(clean))
    assert getattr(energy, name) == energy.worst > 4
    assert all(getattr(energy, other) < 1.5 for other in NAMES if other != name)


@pytest.mark.parametrize("period_px", [3.2, 5.3, 8, 20])
def test_strokes_of_other_periods_are_no_grid(period_px):
    clean = pink_image()
    assert grid_energy(with_waves(clean, 0, 1 / period_px, 20.0)).worst < 2 * grid_energy(clean).worst


def test_a_flat_image_has_no_grid():
    energy = grid_energy(np.full((64, 64, 3), 127, np.uint8))
    assert [getattr(energy, name) for name in NAMES] == pytest.approx([1.0] * len(NAMES))


def test_images_smaller_than_a_window_are_refused():
    with pytest.raises(ValueError, match="64 px"):
        grid_energy(np.zeros((63, 200, 3), np.uint8))


def test_metrics_of_colour_structure_and_grid():
    source_HWC = drawn_image(96, 96)
    assert color_shift(source_HWC, source_HWC) == 0 and structural_similarity(source_HWC, source_HWC) == 1
    black, white = np.zeros((64, 64, 3), np.uint8), np.full((64, 64, 3), 255, np.uint8)
    assert color_shift(white, black) == pytest.approx(100, abs=0.01)  # lightness runs from 0 to 100
    noisy_HWC = np.clip(source_HWC + np.random.default_rng(0).normal(0, 60, source_HWC.shape), 0, 255).astype(np.uint8)
    assert structural_similarity(noisy_HWC, source_HWC) < 0.8
    lined_HWC = source_HWC.copy()
    lined_HWC[:, ::2] = np.clip(lined_HWC[:, ::2].astype(int) + 25, 0, 255)
    assert checkerboard(lined_HWC, source_HWC) > 10 * checkerboard(source_HWC, source_HWC)
