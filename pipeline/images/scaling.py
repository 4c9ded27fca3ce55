"""From samples of any depth to 8 bits."""

from __future__ import annotations

import numpy as np


def to_eight_bits(values: np.ndarray, top: int | None = None) -> tuple[np.ndarray, str | None]:
    """Scale samples to 0..255.

    8-bit integers stay, 16-bit unsigned integers span 0 to 65535. All others have no agreed range: values within
    0..1 (floats), 0..255 or 0..65535 count as that range, anything else is stretched from its minimum to its maximum.

    Args:
        values: of any shape and any integer or float dtype.
        top: the largest value that can occur, where the file says so.

    Returns:
        uint8 of the same shape, and a note where the range was guessed.
    """
    if values.dtype == np.uint8:
        return values, None
    if top is None and values.dtype == np.uint16:
        top = 65535
    if top is not None:
        wide = np.minimum(values, top).astype(np.uint32)
        # 65535 becomes 255, and any 8-bit value times 257 comes back.
        return ((wide * 255 + top // 2) // top).astype(np.uint8), None
    is_float = values.dtype.kind == "f"
    values = values.astype(np.float64 if values.dtype.itemsize >= (8 if is_float else 4) else np.float32)
    notes = []
    finite = np.isfinite(values)
    if not finite.all():
        values = np.where(finite, values, 0)
        notes.append("pixels that are no numbers were made black")
    low, high = float(values.min()), float(values.max())
    for known in (1.0,) * is_float + (255.0, 65535.0):
        if low >= 0 and high <= known:
            values = values * (255.0 / known)
            break
    else:
        notes.insert(0, f"values from {low:g} to {high:g} were stretched to 0..255")
        largest = max(abs(low), abs(high))  # so that nothing overflows
        span = high / largest - low / largest
        values = (values / largest - low / largest) * (255.0 / span if span else 0.0)
    return np.rint(np.clip(values, 0, 255)).astype(np.uint8), "; ".join(notes) or None


def alpha_bits(alpha_HW: np.ndarray) -> np.ndarray:
    """Bring alpha of any dtype to uint8 or uint16: floats span 0..1, integers their whole range."""
    if alpha_HW.dtype.kind == "f":
        return np.rint(np.clip(np.nan_to_num(alpha_HW.astype(np.float32)), 0, 1) * 255).astype(np.uint8)
    if alpha_HW.dtype.kind == "i":
        alpha_HW = np.maximum(alpha_HW, 0).view(f"u{alpha_HW.dtype.itemsize}") << 1
    if alpha_HW.dtype.itemsize <= 2:
        return alpha_HW
    return (alpha_HW >> (8 * alpha_HW.dtype.itemsize - 16)).astype(np.uint16)
