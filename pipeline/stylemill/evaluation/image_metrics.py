"""How much of an image follows the network's own grid: checkerboards and lines that no painter drew.

What one painted picture measures beside its loss: colour, structure, grid.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

WINDOW_PX = 64
"""Side of the windows in which spectra are taken: what repeats is seen even where its sign changes over the image."""
_NEAR, _FAR = 3, 6
"""Bins from a frequency to its surroundings; a Hann window spreads a frequency over one bin to each side."""
_TINY = 1e-12


@dataclass(frozen=True, kw_only=True)
class GridEnergy:
    """Energy at the frequencies of the network's grid, each over that of the frequencies around it.

    About 1 in an image without a grid. The period of 2 px is the Nyquist frequency and comes from the last upsampling,
    that of 4 px from the one before it. Lines 8/3 px apart are what both make of wider ones.
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
        """The largest of them."""
        return max(getattr(self, field.name) for field in fields(self))

    def over(self, source: GridEnergy) -> GridEnergy:
        """Return these energies divided by those of a source, whose own grid (JPEG has one) is not the network's."""
        return GridEnergy(
            **{field.name: getattr(self, field.name) / getattr(source, field.name) for field in fields(self)}
        )


def grid_energy(image_HWC: NDArray[np.uint8]) -> GridEnergy:
    """Measure the grid in an image.

    The power spectrum is averaged over half-overlapping Hann windows and over the colours. Each of the
    frequencies is compared with the geometric mean of those three to six bins away, along the axis on which lines of
    that frequency lie (on the diagonals for those that lie on both).

    Args:
        image_HWC: (H, W, 3) uint8, both sides at least 64 px.

    Raises:
        ValueError: a smaller image, or another shape.

    Source: Welch 1967, doi:10.1109/TAU.1967.1161901; for where such grids come from, Odena et al. 2016,
    doi:10.23915/distill.00003.
    """
    if image_HWC.ndim != 3 or min(image_HWC.shape[:2]) < WINDOW_PX:
        raise ValueError(f"expected (H, W, 3) with sides from {WINDOW_PX} px, got {image_HWC.shape}")
    power_YX = _mean_spectrum(image_HWC)
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


def _mean_spectrum(image_HWC: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the (WINDOW_PX, WINDOW_PX) power by frequency down and across."""
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
    """Return the power at a frequency over the geometric mean of its surroundings along a direction."""
    steps = [sign * step for step in range(_NEAR, _FAR + 1) for sign in (-1, 1)]
    around = [
        power_YX[(at[0] + step * direction[0]) % WINDOW_PX, (at[1] + step * direction[1]) % WINDOW_PX] for step in steps
    ]
    return float((power_YX[at] + _TINY) / np.exp(np.log(np.array(around) + _TINY).mean()))


Image = NDArray[np.uint8]


def color_shift(result_HWC: Image, source_HWC: Image) -> float:
    """Return how far the mean colour has moved: the distance of the mean CIELAB values (Delta E*ab, 1976).

    Args:
        result_HWC: (H, W, 3) uint8 sRGB.
        source_HWC: the same size.
    """
    from skimage.color import rgb2lab

    means = [rgb2lab(image_HWC).mean(axis=(0, 1)) for image_HWC in (result_HWC, source_HWC)]
    return float(np.linalg.norm(means[0] - means[1]))


def structural_similarity(result_HWC: Image, source_HWC: Image) -> float:
    """Return the mean structural similarity of the lightness of two pictures; 1 for equal ones.

    Args:
        result_HWC: (H, W, 3) uint8 sRGB.
        source_HWC: the same size, sides of at least 11 px.

    Source: Wang et al. 2004, doi:10.1109/TIP.2003.819861, with its Gaussian window of standard deviation 1.5.
    """
    from skimage.color import rgb2gray
    from skimage.metrics import structural_similarity as ssim

    gray = [rgb2gray(image_HWC) for image_HWC in (result_HWC, source_HWC)]
    return float(ssim(*gray, data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False))


def checkerboard(result_HWC: Image, source_HWC: Image) -> float:
    """Return the worst grid energy of a picture over that of its source; about 1 without a grid of the network's.

    Args:
        result_HWC: (H, W, 3) uint8, sides of at least 64 px.
        source_HWC: the same size.
    """
    return grid_energy(result_HWC).over(grid_energy(source_HWC)).worst
