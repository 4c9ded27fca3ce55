"""Alpha with 16 bits, which Pillow reduces to 8 when it reads a file and does not write to PNG.

``read_alpha16`` reads the alpha of an opened file a second time, for the low bytes that Pillow dropped the first time.
``write_png16`` writes the PNG files that keep such an alpha.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from PIL import Image, ImageFile

# Unpacked with the other byte order, a sample keeps its low byte instead of its high byte.
_SWAPPED: Final = {
    "RGB;16B": "RGB;16L",
    "RGB;16L": "RGB;16B",
    "RGB;16N": "RGB;16B",
    "RGBA;16B": "RGBA;16L",
    "RGBA;16L": "RGBA;16B",
    "RGBA;16N": "RGBA;16B",
}
_GRAY_ALPHA: Final = "LA;16B"

_BYTES_PER_PIXEL: Final = 8
_RGBA: Final = 6
_FILTER_SUB: Final = 1


def rawmode_of(image: ImageFile.ImageFile) -> str | None:
    """Return the raw mode from which Pillow will unpack the first tile of an image that is not loaded yet."""
    if not image.tile:
        return None
    arguments: Any = image.tile[0].args
    if isinstance(arguments, tuple):
        arguments = arguments[0] if arguments else None
    return arguments if isinstance(arguments, str) else None


def read_alpha16(
    image: Image.Image, rawmode: str | None, reopen: Callable[[], ImageFile.ImageFile]
) -> np.ndarray | None:
    """Return the alpha of an image with 16 bits per channel, exactly as stored.

    Args:
        image: loaded by Pillow, so with the high bytes only.
        rawmode: from ``rawmode_of`` before the image was loaded.
        reopen: opens the same file again, at the same frame.

    Returns:
        (H, W) uint16; (H, W) uint8 if every value is an 8-bit value times 257; None if the image has no 16-bit alpha.
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
    full_HWC = np.asarray(image).astype(np.uint16) << 8 | np.asarray(low)
    return np.where((full_HWC == np.array(transparent, np.uint16)).all(axis=-1), 0, 255).astype(np.uint8)


def _load_as(image: ImageFile.ImageFile, mode: str, rawmode: str) -> Image.Image:
    """Load an opened image with another raw mode than its plugin has chosen."""
    image._mode = mode
    image.tile = [
        tile._replace(args=(rawmode, *tile.args[1:]) if isinstance(tile.args, tuple) else rawmode)
        for tile in image.tile
    ]
    image.info.pop("transparency", None)
    image.load()
    return image


def _narrow(alpha_HW: np.ndarray) -> np.ndarray:
    """Return the alpha as uint8 if that loses nothing."""
    high_HW = (alpha_HW >> 8).astype(np.uint8)
    return high_HW if (high_HW.astype(np.uint16) * 257 == alpha_HW).all() else alpha_HW


def write_png16(image_HWC: np.ndarray, alpha_HW: np.ndarray, chunks: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Return an RGBA PNG with 16 bits per channel.

    Args:
        image_HWC: (H, W, 3) uint8; written as 8-bit values times 257, which decode to the same 8 bits.
        alpha_HW: (H, W) uint16; written exactly.
        chunks: kind and content of the chunks between the header and the pixels.

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
