"""PNG with 16 bits a channel, which Pillow does not write: for alpha that came with 16 bits.

16 bits a channel, where Pillow keeps eight: a second look at the same file for the low bytes.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from PIL import Image, ImageFile

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


# Read with the other byte order, Pillow keeps the low byte of every sample instead of the high one.
_SWAPPED: Final = {
    "RGB;16B": "RGB;16L",
    "RGB;16L": "RGB;16B",
    "RGB;16N": "RGB;16B",
    "RGBA;16B": "RGBA;16L",
    "RGBA;16L": "RGBA;16B",
    "RGBA;16N": "RGBA;16B",
}
_GRAY_ALPHA: Final = "LA;16B"


def deep_alpha(image: Image.Image, rawmode: str | None, reopen: Callable[[], ImageFile.ImageFile]) -> np.ndarray | None:
    """Return the alpha of a picture with 16 bits a channel, exactly as stored.

    Args:
        image: the picture as Pillow reads it, loaded, with the high bytes.
        rawmode: what its pixels were unpacked from, from ``rawmode_of`` before it was loaded.
        reopen: opens the same file once more, at the same frame.

    Returns:
        (H, W) uint16; or uint8 where every value is an 8-bit value times 257; None if this picture has no alpha
        of 16 bits.
    """
    transparent = image.info.get("transparency")
    if rawmode == _GRAY_ALPHA:
        low = _load_as(reopen(), "I", "I;32B")
        return _narrow(np.asarray(low).view(np.uint32).astype(np.uint16))
    if rawmode not in _SWAPPED or not (rawmode.startswith("RGBA") or isinstance(transparent, tuple)):
        return None
    low = _load_as(reopen(), image.mode, _SWAPPED[rawmode])
    if rawmode.startswith("RGBA"):
        high_HW, low_HW = (np.asarray(part.getchannel("A")).astype(np.uint16) for part in (image, low))
        return _narrow(high_HW << 8 | low_HW)
    same_HWC = np.asarray(image).astype(np.uint16) << 8 | np.asarray(low)
    return np.where((same_HWC == np.array(transparent, np.uint16)).all(axis=-1), 0, 255).astype(np.uint8)


def rawmode_of(image: ImageFile.ImageFile) -> str | None:
    """Return what the first tile of a picture that is not loaded yet will be unpacked from."""
    if not image.tile:
        return None
    arguments: Any = image.tile[0].args
    if isinstance(arguments, tuple):
        arguments = arguments[0] if arguments else None
    return arguments if isinstance(arguments, str) else None


def _load_as(image: ImageFile.ImageFile, mode: str, rawmode: str) -> Image.Image:
    image._mode = mode
    image.tile = [
        tile._replace(args=(rawmode, *tile.args[1:]) if isinstance(tile.args, tuple) else rawmode)
        for tile in image.tile
    ]
    image.info.pop("transparency", None)
    image.load()
    return image


def _narrow(alpha_HW: np.ndarray) -> np.ndarray:
    high_HW = (alpha_HW >> 8).astype(np.uint8)
    return high_HW if (high_HW.astype(np.uint16) * 257 == alpha_HW).all() else alpha_HW
