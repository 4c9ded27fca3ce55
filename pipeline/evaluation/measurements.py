"""What one painted picture measures beside its loss: colour, structure, grid."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.nn.checkerboard import grid_energy

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
