"""Controls of a result: strength, colour preservation, size and texture scale."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from PIL import Image

_STRIP_PIXELS = 1 << 20
_LEAST_NETWORK_PX = 16


def blend(source_HWC: np.ndarray, result_HWC: np.ndarray, strength: float) -> np.ndarray:
    """Mix the source with the result.

    Args:
        source_HWC: (H, W, 3) uint8.
        result_HWC: (H, W, 3) uint8, of the same size.
        strength: 0 returns the source and 1 the result, both bit for bit; values between are rounded to 1/256.

    Returns:
        (H, W, 3) uint8; for 0 and 1 one of the arguments itself.

    Raises:
        ValueError: the sizes differ or the strength is out of range.
    """
    _check_same_size(source_HWC, result_HWC)
    if not 0 <= strength <= 1:
        raise ValueError(f"strength {strength} is not between 0 and 1")
    weight = round(strength * 256)
    if weight == 0 or strength == 0:
        return source_HWC
    if weight == 256:
        return result_HWC
    mixed_HWC = np.empty_like(result_HWC)
    for rows in _strips(result_HWC):
        # At most 255 * 256 + 128 < 2**16.
        strip = source_HWC[rows] * np.uint16(256 - weight)
        strip += result_HWC[rows] * np.uint16(weight)
        strip += np.uint16(128)
        strip >>= np.uint16(8)
        mixed_HWC[rows] = strip
    return mixed_HWC


def preserve_color(source_HWC: np.ndarray, result_HWC: np.ndarray) -> np.ndarray:
    """Return the luminance of the result with the chroma of the source.

    Args:
        source_HWC: (H, W, 3) uint8.
        result_HWC: (H, W, 3) uint8, of the same size.

    Returns:
        (H, W, 3) uint8; colours outside the gamut are clipped.

    Source: Gatys et al. 2016, arXiv:1606.05897, section 3.2 (luminance-only transfer), in the YCbCr of JFIF.
    """
    _check_same_size(source_HWC, result_HWC)
    colored_HWC = np.empty_like(result_HWC)
    for rows in _strips(result_HWC):
        _, blue, red = Image.fromarray(source_HWC[rows]).convert("YCbCr").split()
        luminance = Image.fromarray(result_HWC[rows]).convert("YCbCr").getchannel(0)
        colored_HWC[rows] = Image.merge("YCbCr", (luminance, blue, red)).convert("RGB")
    return colored_HWC


def limit_size(image_HWC: np.ndarray, max_size_px: int | None) -> np.ndarray:
    """Downscale an image so that its longer side is at most ``max_size_px``; the aspect ratio is kept.

    Args:
        image_HWC: (H, W, 3) uint8.
        max_size_px: largest length of the longer side, None for no limit.

    Returns:
        (H, W, 3) uint8; the image itself if it is small enough. ``encode`` scales alpha to the size of the result.
    """
    height_px, width_px = image_HWC.shape[:2]
    if max_size_px is None or max(width_px, height_px) <= max_size_px:
        return image_HWC
    return resize(image_HWC, *scaled_size(width_px, height_px, max_size_px / max(width_px, height_px), least_px=1))


def network_size(width_px: int, height_px: int, texture_scale: float) -> tuple[int, int]:
    """Return the input size of the network for strokes ``texture_scale`` times as large.

    A network paints strokes of a fixed number of pixels. At half the size of the image, its strokes are twice as large
    after the result has been scaled back: scale 2 needs half the size, scale 0.5 twice the size.

    Args:
        width_px: of the image.
        height_px: of the image.
        texture_scale: above 0; 1 changes nothing.
    """
    if texture_scale == 1:
        return width_px, height_px
    return scaled_size(width_px, height_px, 1 / texture_scale, least_px=_LEAST_NETWORK_PX)


def scaled_size(width_px: int, height_px: int, factor: float, *, least_px: int) -> tuple[int, int]:
    """Return a size times a factor, rounded; a side of at least ``least_px`` is not scaled below ``least_px``."""
    return (
        max(round(width_px * factor), min(width_px, least_px)),
        max(round(height_px * factor), min(height_px, least_px)),
    )


def resize(array: np.ndarray, width_px: int, height_px: int) -> np.ndarray:
    """Resample an image or its alpha with a Lanczos filter.

    Args:
        array: (H, W, 3) uint8, (H, W) uint8 or (H, W) uint16.
        width_px: of the result.
        height_px: of the result.

    Returns:
        An array of the same dtype and number of channels; the array itself if it already has that size.
    """
    if array.shape[:2] == (height_px, width_px):
        return array
    if array.dtype == np.uint16:
        wide = Image.fromarray(array.astype(np.float32)).resize((width_px, height_px), Image.Resampling.LANCZOS)
        return np.clip(np.rint(np.asarray(wide)), 0, 65535).astype(np.uint16)
    return np.asarray(Image.fromarray(array).resize((width_px, height_px), Image.Resampling.LANCZOS))


def _strips(image_HWC: np.ndarray) -> Iterator[slice]:
    """Yield slices of rows, so that temporary arrays fit into the cache whatever the size of the image."""
    height, width = image_HWC.shape[:2]
    step = max(1, _STRIP_PIXELS // width)
    for first in range(0, height, step):
        yield slice(first, first + step)


def _check_same_size(source_HWC: np.ndarray, result_HWC: np.ndarray) -> None:
    if source_HWC.shape != result_HWC.shape:
        raise ValueError(f"source {source_HWC.shape} and result {result_HWC.shape} differ in size")
