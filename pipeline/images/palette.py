"""256 colours, for the one container that holds no more."""

from __future__ import annotations

import numpy as np
from PIL import Image


def to_palette(picture: Image.Image) -> tuple[Image.Image, bool]:
    """Reduce a picture to at most 256 colours, of which one is transparency if it has alpha.

    Few enough colours are kept exactly; more are chosen by median cut and dithered. Alpha below one half
    becomes transparent, everything else opaque.

    Args:
        picture: ``RGB`` or ``RGBA``.

    Returns:
        A ``P`` picture, and whether colours were lost.
    """
    transparent_HW = None
    if picture.mode == "RGBA":
        transparent_HW = np.asarray(picture.getchannel("A")) < 128
        picture = picture.convert("RGB")
        if not transparent_HW.any():
            transparent_HW = None
    num_colors = 256 if transparent_HW is None else 255
    indices_HW, colors, reduced = _indices(picture, num_colors, transparent_HW)
    if transparent_HW is not None:
        indices_HW = np.where(transparent_HW, np.uint8(len(colors)), indices_HW)
        colors = np.concatenate([colors, np.zeros((1, 3), np.uint8)])
    result = Image.fromarray(indices_HW).convert("P")
    result.putpalette(colors.tobytes())
    if transparent_HW is not None:
        result.info["transparency"] = len(colors) - 1
    return result, reduced


def _indices(
    picture: Image.Image, num_colors: int, unseen_HW: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, bool]:
    """Return (H, W) indices, (N, 3) colours, and whether colours were lost."""
    image_HWC = np.asarray(picture)
    packed_HW = image_HWC[..., 0].astype(np.uint32) << 16 | image_HWC[..., 1].astype(np.uint32) << 8 | image_HWC[..., 2]
    if unseen_HW is not None:
        # Hidden pixels must not take a colour of their own.
        seen = packed_HW[~unseen_HW]
        packed_HW = np.where(unseen_HW, seen[0] if len(seen) else np.uint32(0), packed_HW)
    unique, inverse_HW = np.unique(packed_HW, return_inverse=True)
    if len(unique) <= num_colors:
        colors = np.stack([unique >> 16, unique >> 8 & 255, unique & 255], axis=-1).astype(np.uint8)
        return inverse_HW.reshape(packed_HW.shape).astype(np.uint8), colors, False
    chosen = picture.quantize(num_colors, Image.Quantize.MEDIANCUT)
    dithered = picture.quantize(palette=chosen, dither=Image.Dither.FLOYDSTEINBERG)
    colors = np.frombuffer(bytes(chosen.getpalette() or ()), np.uint8).reshape(-1, 3)[:num_colors]
    return np.asarray(dithered), colors, True
