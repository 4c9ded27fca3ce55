"""Measures of what an eye complains about in painted pictures: rim, halo, blobs and diagonals.

Each relates a painted picture to its source and is about 1 where the artefact is absent: photographs have none, and a
style's strokes spread over the whole picture, while the artefacts are at borders, at edges, in single places or in one
direction. docs/quality.md lists the values of photographs and of trained styles.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Floats = NDArray[np.float64]

MIN_SIDE_PX = 64
"""Shorter side of the smallest picture that can be measured."""
_RIM_PX, _RIM_APART_PX = 4, 8
_PLATEAU_PX, _HALO_PX = 8, 6
_NUM_EDGES = 2000
_SMOOTH_PX = 3.0
_WINDOW_PX = 64


def rim(result_HWC: Image, source_HWC: Image) -> float:
    """Return how much more a picture changes towards its border than inside, relative to its source.

    A rim is a band along the border in another colour, which padding leaves. The change between the mean colours of
    two parallel bands, of the outermost 4 px and of the 4 px that lie 8 px further inside, is divided by the root mean
    square of the same change between bands inside the picture, and averaged over the four sides.

    Args:
        result_HWC: (H, W, 3) uint8, both sides at least 64 px.
        source_HWC: (H, W, 3) uint8, of the same size.

    Raises:
        ValueError: the picture is smaller.
    """
    _check(result_HWC, source_HWC)
    return (_border_change(result_HWC) + 1) / (_border_change(source_HWC) + 1)


def _border_change(image_HWC: Image) -> float:
    image = image_HWC.astype(np.float64)
    changes = []
    for turned in (image, image[::-1], image.transpose(1, 0, 2), image.transpose(1, 0, 2)[::-1]):
        profile_PC = turned.mean(axis=1)
        bands = np.lib.stride_tricks.sliding_window_view(profile_PC, _RIM_PX, axis=0).mean(axis=-1)
        apart = np.linalg.norm(bands[_RIM_APART_PX:] - bands[:-_RIM_APART_PX], axis=1)
        inside = np.sqrt(np.square(apart[_RIM_APART_PX : len(apart) - _RIM_APART_PX]).mean())
        changes.append(apart[0] / (inside + 1.0))
    return float(np.mean(changes))


def halo(result_HWC: Image, source_HWC: Image) -> float:
    """Return 1 plus the overshoot along strong edges, as a fraction of the edge's step.

    Profiles of the lightness are taken across the strongest edges of the source and averaged, so that only what follows
    the edges remains. A halo is a band beside the edge that is brighter than the bright side, or darker than the dark
    side. The overshoot of the source itself, from sharpening, is subtracted.

    Args:
        result_HWC: (H, W, 3) uint8, both sides at least 64 px.
        source_HWC: (H, W, 3) uint8, of the same size.

    Raises:
        ValueError: the picture is smaller.
    """
    _check(result_HWC, source_HWC)
    points_P2, normals_P2 = _edges(_lightness(source_HWC))
    if not len(points_P2):
        return 1.0
    result, source = (_overshoot(_lightness(image), points_P2, normals_P2) for image in (result_HWC, source_HWC))
    return 1.0 + max(0.0, result - source)


def _edges(lightness_HW: Floats) -> tuple[Floats, Floats]:
    """Return points (y, x) on the strongest edges, and the unit normals there."""
    from scipy.ndimage import gaussian_filter, gaussian_gradient_magnitude

    smooth_HW = gaussian_filter(lightness_HW, 1.5)
    strength_HW = gaussian_gradient_magnitude(lightness_HW, 1.5)
    reach = _PLATEAU_PX + _RIM_PX + 1
    inner = strength_HW[reach:-reach, reach:-reach]
    if inner.size == 0 or inner.max() <= 0:
        return np.empty((0, 2)), np.empty((0, 2))
    order = np.argsort(inner, axis=None)[::-1][: max(1, min(_NUM_EDGES, inner.size // 20))]
    points_P2 = np.stack(np.unravel_index(order, inner.shape), axis=1) + reach
    down_HW, across_HW = np.gradient(smooth_HW)
    normals_P2 = np.stack([grid[tuple(points_P2.T)] for grid in (down_HW, across_HW)], axis=1)
    normals_P2 /= np.linalg.norm(normals_P2, axis=1, keepdims=True) + 1e-12
    return points_P2.astype(np.float64), normals_P2


def _overshoot(lightness_HW: Floats, points_P2: Floats, normals_P2: Floats) -> float:
    """Return by how much the mean profile across the edges leaves the range between its two plateaus."""
    from scipy.ndimage import map_coordinates

    at_T = np.arange(-_PLATEAU_PX - _RIM_PX, _PLATEAU_PX + _RIM_PX + 1)
    places = points_P2[:, None] + normals_P2[:, None] * at_T[None, :, None]
    profiles_PT = map_coordinates(lightness_HW, places.transpose(2, 0, 1), order=1, mode="nearest")
    low_P = profiles_PT[:, at_T <= -_PLATEAU_PX].mean(axis=1)
    high_P = profiles_PT[:, at_T >= _PLATEAU_PX].mean(axis=1)
    # A style may paint the dark side light: profiles are turned so that they all rise.
    falls_P = high_P < low_P
    profiles_PT[falls_P] = profiles_PT[falls_P, ::-1]
    mean_T = profiles_PT.mean(axis=0)
    low, high = mean_T[at_T <= -_PLATEAU_PX].mean(), mean_T[at_T >= _PLATEAU_PX].mean()
    bright = mean_T[(at_T > 0) & (at_T <= _HALO_PX)].max() - high
    dark = low - mean_T[(at_T < 0) & (at_T >= -_HALO_PX)].min()
    return float((max(bright, 0.0) + max(dark, 0.0)) / (high - low + 2.0))


def blobs(result_HWC: Image, source_HWC: Image) -> float:
    """Return how far the strongest spot stands out of a picture, relative to its source.

    Networks with instance norms can leave single spots of extreme colour, like drops of water. A spot's strength is the
    difference of the smoothed colour from the colour around it; the strongest one is divided by the 99th percentile.

    Args:
        result_HWC: (H, W, 3) uint8, both sides at least 64 px.
        source_HWC: (H, W, 3) uint8, of the same size.

    Raises:
        ValueError: the picture is smaller.
    Source: droplets as in Karras et al. 2020, arXiv:1912.04958, section 2.
    """
    _check(result_HWC, source_HWC)
    return max(1.0, _strongest_spot(result_HWC)) / max(1.0, _strongest_spot(source_HWC))


def _strongest_spot(image_HWC: Image) -> float:
    from scipy.ndimage import gaussian_filter

    image = image_HWC.astype(np.float64)
    near, around = (gaussian_filter(image, (width, width, 0)) for width in (_SMOOTH_PX, 3 * _SMOOTH_PX))
    spots_HW = np.linalg.norm(near - around, axis=2)
    return float((spots_HW.max() + 1.0) / (np.percentile(spots_HW, 99) + 1.0))


def diagonals(result_HWC: Image, source_HWC: Image) -> float:
    """Return the energy of the strongest diagonal lattice of a picture, relative to its source.

    A lattice is a peak of the spectrum at one oblique frequency, with a period of 2.2 to 12 px, that is the same all
    over the picture. Strokes in many directions and of many widths have no peak.

    Args:
        result_HWC: (H, W, 3) uint8, both sides at least 64 px.
        source_HWC: (H, W, 3) uint8, of the same size.

    Raises:
        ValueError: the picture is smaller.
    """
    _check(result_HWC, source_HWC)
    return _strongest_peak(result_HWC) / _strongest_peak(source_HWC)


def _strongest_peak(image_HWC: Image) -> float:
    from scipy.ndimage import median_filter

    from stylemill.evaluation.image_metrics import mean_spectrum

    log_power_YX = np.log(np.fft.fftshift(mean_spectrum(image_HWC)) + 1e-3)
    frequency = np.fft.fftshift(np.fft.fftfreq(_WINDOW_PX))
    down_YX, across_YX = np.meshgrid(frequency, frequency, indexing="ij")
    radius_YX, slope_YX = np.hypot(down_YX, across_YX), np.abs(np.abs(down_YX) - np.abs(across_YX))
    is_oblique = (radius_YX > 1 / 12) & (radius_YX < 1 / 2.2) & (slope_YX < 0.5 * radius_YX)
    excess_YX = log_power_YX - median_filter(log_power_YX, size=9, mode="wrap")
    return float(np.exp(excess_YX[is_oblique].max()))


def _lightness(image_HWC: Image) -> Floats:
    lightness_HW: Floats = image_HWC.astype(np.float64) @ np.array((0.299, 0.587, 0.114))
    return lightness_HW


def _check(result_HWC: Image, source_HWC: Image) -> None:
    if result_HWC.shape != source_HWC.shape or min(result_HWC.shape[:2]) < MIN_SIDE_PX:
        problem = f"expected two pictures of one size from {MIN_SIDE_PX} px"
        raise ValueError(f"{problem}, got {result_HWC.shape} and {source_HWC.shape}")
