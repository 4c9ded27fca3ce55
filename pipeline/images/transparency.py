"""Alpha where a result has none, or fewer bits of it."""

from __future__ import annotations

import numpy as np
from PIL import Image


def to_8_bits(alpha_HW: np.ndarray) -> np.ndarray:
    """Return (H, W) uint8 alpha of one that is uint8 or uint16."""
    return alpha_HW if alpha_HW.dtype == np.uint8 else (alpha_HW >> 8).astype(np.uint8)


def on_white(picture: Image.Image, alpha: Image.Image) -> Image.Image:
    """Return an RGB picture laid on white through an 8-bit alpha of its size."""
    return Image.composite(picture, Image.new("RGB", picture.size, "white"), alpha)
