"""Turns pixels upright by the EXIF orientation."""

from __future__ import annotations

import numpy as np


def upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """Return the array as a viewer shows it.

    Args:
        array: (H, W, ...) of any dtype, as stored.
        orientation: EXIF 0x0112; 1 to 8, anything else counts as 1.

    Returns:
        A contiguous array; (W, H, ...) for the orientations 5 to 8.
    Source: CIPA DC-008 (EXIF 2.32), tag Orientation.
    """
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return np.ascontiguousarray(array)
