"""Rim, halo, blobs and diagonals on drawn pictures with and without the artefact."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from stylemill.evaluation.artifacts import blobs, diagonals, halo, rim
from tests.unit.evaluation.test_image_metrics import pink_image

ALL = (rim, halo, blobs, diagonals)


def scene(seed: int = 1) -> np.ndarray:
    """Return a picture with large discs of flat colours on noise with the spectrum of photographs."""
    rng = np.random.default_rng(seed)
    image_HWC = 90 + 0.3 * (pink_image(seed=seed).astype(float) - 128)
    y, x = np.mgrid[: image_HWC.shape[0], : image_HWC.shape[1]]
    for _ in range(6):
        centre, radius = rng.uniform(40, 160, 2), rng.uniform(18, 40)
        image_HWC[np.hypot(y - centre[0], x - centre[1]) < radius] += rng.uniform(30, 80)
    return gaussian_filter(image_HWC, (0.7, 0.7, 0)).clip(0, 255).astype(np.uint8)


def strokes(image_HWC: np.ndarray, seed: int = 5) -> np.ndarray:
    """Return the picture with strokes of many directions and widths, as a style without artefacts paints it."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: image_HWC.shape[0], : image_HWC.shape[1]]
    painted = image_HWC.astype(float)
    for _ in range(1500):
        top, left, turn = rng.uniform(0, image_HWC.shape[0]), rng.uniform(0, image_HWC.shape[1]), rng.uniform(0, np.pi)
        length, width = rng.uniform(4, 14), rng.uniform(1, 3)
        near = (slice(max(0, int(top) - 15), int(top) + 15), slice(max(0, int(left) - 15), int(left) + 15))
        along = (y[near] - top) * np.sin(turn) + (x[near] - left) * np.cos(turn)
        across = (y[near] - top) * np.cos(turn) - (x[near] - left) * np.sin(turn)
        painted[near][(np.abs(along) < length) & (np.abs(across) < width)] += rng.normal(0, 14, 3)
    return painted.clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("measure", ALL)
def test_a_picture_has_no_artefacts_of_its_own(measure):
    assert measure(scene(), scene()) == pytest.approx(1)


@pytest.mark.parametrize("measure", ALL)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_strokes_and_other_colours_are_no_artefacts(measure, seed):
    source = scene(seed)
    assert 0.6 < measure(strokes(source), source) < 1.3
    assert 0.6 < measure(255 - source // 2, source) < 1.3


@pytest.mark.parametrize("width_px", [2, 4])
@pytest.mark.parametrize("colour", [(40, 40, 40), (-30, 10, -30)])
def test_a_rim_is_found(width_px, colour):
    source = scene()
    framed = strokes(source).astype(int)
    band = np.ones(framed.shape[:2], bool)
    band[width_px:-width_px, width_px:-width_px] = False
    framed[band] += colour
    assert rim(framed.clip(0, 255).astype(np.uint8), source) > 1.5


def test_a_halo_is_found():
    source = scene()
    smooth = gaussian_filter(source.astype(float), (4, 4, 0))
    sharpened = (source + 1.2 * (source - smooth)).clip(0, 255).astype(np.uint8)
    assert halo(sharpened, source) > 1.3
    assert halo(strokes(sharpened), source) > 1.3
    assert halo(255 - sharpened, source) > 1.3


@pytest.mark.parametrize("colour", [(255, 255, 255), (255, 0, 200), (0, 0, 0)])
def test_a_single_drop_is_found(colour):
    source = scene()
    painted = strokes(source)
    y, x = np.mgrid[: source.shape[0], : source.shape[1]]
    painted[np.hypot(y - 100, x - 130) < 6] = colour
    assert blobs(painted, source) > 1.3


@pytest.mark.parametrize("period_px", [3, 4, 6.5, 9])
@pytest.mark.parametrize("turn", [35, 45, 125])
def test_a_diagonal_lattice_is_found(period_px, turn):
    source = scene()
    y, x = np.mgrid[: source.shape[0], : source.shape[1]]
    phase = 2 * np.pi * (y * np.sin(np.radians(turn)) + x * np.cos(np.radians(turn))) / period_px
    woven = strokes(source) + 8 * np.cos(phase)[..., None]
    assert diagonals(woven.clip(0, 255).astype(np.uint8), source) > 2


@pytest.mark.parametrize("measure", ALL)
def test_small_pictures_and_other_sizes_are_refused(measure):
    with pytest.raises(ValueError, match="64 px"):
        measure(np.zeros((63, 90, 3), np.uint8), np.zeros((63, 90, 3), np.uint8))
    with pytest.raises(ValueError, match="one size"):
        measure(np.zeros((80, 90, 3), np.uint8), np.zeros((90, 80, 3), np.uint8))


@pytest.mark.parametrize("measure", ALL)
def test_flat_pictures_are_measured(measure):
    assert measure(np.full((80, 90, 3), 120, np.uint8), np.full((80, 90, 3), 60, np.uint8)) == pytest.approx(1)
