"""PNG with 16 bits a channel, which Pillow does not write: for alpha that came with 16 bits."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

import numpy as np

_BYTES_PER_PIXEL = 8
_RGBA = 6
_FILTER_SUB = 1


def write_png16(image_HWC: np.ndarray, alpha_HW: np.ndarray, chunks: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Write an RGBA PNG with 16 bits a channel.

    Args:
        image_HWC: (H, W, 3) uint8; 8-bit values times 257, so that they come back exactly.
        alpha_HW: (H, W) uint16, kept exactly.
        chunks: kind and content of what stands before the pixels.
    Source: W3C PNG specification, third edition, sections 5.3, 9.2 (filter Sub) and 11.2.
    """
    height_px, width_px = alpha_HW.shape
    pixels_HWC = np.empty((height_px, width_px, 4), ">u2")
    pixels_HWC[..., :3] = image_HWC
    pixels_HWC[..., :3] *= 257
    pixels_HWC[..., 3] = alpha_HW
    raw = pixels_HWC.view(np.uint8).reshape(height_px, width_px * _BYTES_PER_PIXEL)
    lines = np.empty((height_px, 1 + raw.shape[1]), np.uint8)
    lines[:, 0] = _FILTER_SUB
    lines[:, 1 : 1 + _BYTES_PER_PIXEL] = raw[:, :_BYTES_PER_PIXEL]
    np.subtract(raw[:, _BYTES_PER_PIXEL:], raw[:, :-_BYTES_PER_PIXEL], out=lines[:, 1 + _BYTES_PER_PIXEL :])
    header = struct.pack(">IIBBBBB", width_px, height_px, 16, _RGBA, 0, 0, 0)
    body = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(lines.tobytes(), 6)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, content) for kind, content in body)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
