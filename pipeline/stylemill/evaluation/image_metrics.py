"""Metrics of a painted picture other than its loss: colour, structure, and grid artefacts of the network.

``color_shift`` and ``structural_similarity`` compare a picture with its source. ``grid_energy`` measures checkerboards
and lines at the periods of the network's upsampling; ``checkerboard`` relates it to the source's.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]

WINDOW_PX = 64
"""Side of the windows of which spectra are taken. Small windows find a grid whose sign changes over the image."""
_NEAR, _FAR = 3, 6
"""Distance in bins from a frequency to its neighbours; a Hann window spreads a frequency over one bin on each side."""
_TINY = 1e-12


def color_shift(result_HWC: Image, source_HWC: Image) -> float:
    """Return the distance between the mean CIELAB colours of two pictures (Delta E*ab, 1976).

    Args:
        result_HWC: (H, W, 3) uint8 sRGB.
        source_HWC: (H, W, 3) uint8 sRGB, of the same size.
    """
    return float(np.linalg.norm(palette(result_HWC) - palette(source_HWC)))


def palette(image_HWC: Image) -> NDArray[np.float64]:
    """Return the mean colour of a picture, (3,) CIELAB.

    Args:
        image_HWC: (H, W, 3) uint8 sRGB.
    """
    from skimage.color import rgb2lab

    mean_C: NDArray[np.float64] = rgb2lab(image_HWC).mean(axis=(0, 1))
    return mean_C


def structural_similarity(result_HWC: Image, source_HWC: Image) -> float:
    """Return the mean structural similarity of the lightness of two pictures; 1 for equal ones.

    Args:
        result_HWC: (H, W, 3) uint8 sRGB, both sides at least 11 px.
        source_HWC: (H, W, 3) uint8 sRGB, of the same size.

    Source: Wang et al. 2004, doi:10.1109/TIP.2003.819861, with its Gaussian window of standard deviation 1.5.
    """
    from skimage.color import rgb2gray
    from skimage.metrics import structural_similarity as ssim

    gray = [rgb2gray(image_HWC) for image_HWC in (result_HWC, source_HWC)]
    return float(ssim(*gray, data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False))


def checkerboard(result_HWC: Image, source_HWC: Image) -> float:
    """Return the highest grid energy of a picture relative to its source; about 1 without a grid of the network.

    Args:
        result_HWC: (H, W, 3) uint8, both sides at least 64 px.
        source_HWC: (H, W, 3) uint8, of the same size.
    """
    return grid_energy(result_HWC).over(grid_energy(source_HWC)).worst


@dataclass(frozen=True, kw_only=True)
class GridEnergy:
    """Energy at each frequency of the network's grid, divided by the energy at the frequencies around it.

    Every value is about 1 in an image without a grid. The period of 2 px is the Nyquist frequency and comes from the
    last upsampling, the period of 4 px from the one before it. Lines 8/3 px apart result from both together.
    """

    columns_2px: float
    """Vertical lines, every second column."""
    rows_2px: float
    """Horizontal lines, every second row."""
    both_2px: float
    """A checkerboard of single pixels."""
    columns_4px: float
    """Vertical lines, every fourth column."""
    rows_4px: float
    """Horizontal lines, every fourth row."""
    both_4px: float
    """A checkerboard of two by two pixels, and diagonals of that period."""
    columns_8_thirds_px: float
    """Vertical lines, three in eight columns."""
    rows_8_thirds_px: float
    """Horizontal lines, three in eight rows."""

    @property
    def worst(self) -> float:
        """The largest of the values."""
        return max(getattr(self, field.name) for field in fields(self))

    def over(self, source: GridEnergy) -> GridEnergy:
        """Return the energies divided by those of the source, which removes the source's own grid (JPEG has one)."""
        return GridEnergy(
            **{field.name: getattr(self, field.name) / getattr(source, field.name) for field in fields(self)}
        )


def grid_energy(image_HWC: NDArray[np.uint8]) -> GridEnergy:
    """Measure grid artefacts in an image.

    The power spectrum is averaged over half-overlapping Hann windows and over the colours. The power at each frequency
    is divided by the geometric mean of the power three to six bins away, along the axis of that frequency (along the
    diagonal for the frequencies that have both components).

    Args:
        image_HWC: (H, W, 3) uint8, both sides at least 64 px.

    Raises:
        ValueError: the image is smaller or has another shape.

    Source: Welch 1967, doi:10.1109/TAU.1967.1161901; for the origin of such grids, Odena et al. 2016,
    doi:10.23915/distill.00003.
    """
    if image_HWC.ndim != 3 or min(image_HWC.shape[:2]) < WINDOW_PX:
        raise ValueError(f"expected (H, W, 3) with sides from {WINDOW_PX} px, got {image_HWC.shape}")
    power_YX = mean_spectrum(image_HWC)
    half, quarter, three_eighths = WINDOW_PX // 2, WINDOW_PX // 4, WINDOW_PX * 3 // 8
    return GridEnergy(
        columns_2px=_excess(power_YX, (0, half), (0, 1)),
        rows_2px=_excess(power_YX, (half, 0), (1, 0)),
        both_2px=_excess(power_YX, (half, half), (1, 1)),
        columns_4px=_excess(power_YX, (0, quarter), (0, 1)),
        rows_4px=_excess(power_YX, (quarter, 0), (1, 0)),
        both_4px=max(_excess(power_YX, (quarter, quarter), (1, 1)), _excess(power_YX, (-quarter, quarter), (-1, 1))),
        columns_8_thirds_px=_excess(power_YX, (0, three_eighths), (0, 1)),
        rows_8_thirds_px=_excess(power_YX, (three_eighths, 0), (1, 0)),
    )


def mean_spectrum(image_HWC: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the (WINDOW_PX, WINDOW_PX) power by vertical and horizontal frequency."""
    taper = np.hanning(WINDOW_PX + 1)[:-1]
    window_YX1 = (taper[:, None] * taper)[..., None]
    total_YX, num = np.zeros((WINDOW_PX, WINDOW_PX)), 0
    for top in range(0, image_HWC.shape[0] - WINDOW_PX + 1, WINDOW_PX // 2):
        for left in range(0, image_HWC.shape[1] - WINDOW_PX + 1, WINDOW_PX // 2):
            part_YXC = image_HWC[top : top + WINDOW_PX, left : left + WINDOW_PX].astype(np.float64)
            part_YXC -= part_YXC.mean(axis=(0, 1))
            total_YX += (np.abs(np.fft.fft2(part_YXC * window_YX1, axes=(0, 1))) ** 2).sum(axis=2)
            num += 1
    return total_YX / num


def _excess(power_YX: NDArray[np.float64], at: tuple[int, int], direction: tuple[int, int]) -> float:
    """Return the power at a frequency divided by the geometric mean of its neighbours along a direction."""
    steps = [sign * step for step in range(_NEAR, _FAR + 1) for sign in (-1, 1)]
    around = [
        power_YX[(at[0] + step * direction[0]) % WINDOW_PX, (at[1] + step * direction[1]) % WINDOW_PX] for step in steps
    ]
    return float((power_YX[at] + _TINY) / np.exp(np.log(np.array(around) + _TINY).mean()))
