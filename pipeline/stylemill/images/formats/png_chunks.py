"""The chunks of a PNG file that describe colour and transparency, read without trusting the file.

Pillow skips some of these chunks (cICP, cLLI) and scales gray samples of 2 and 4 bits without the transparent gray.

Source: W3C PNG specification, third edition, sections 5.3, 11.2 and 11.3.
"""

from __future__ import annotations

import struct
from typing import Any, Final

from PIL import ImageFile

_SIGNATURE_BYTES: Final = 8
_MOST_CHUNKS: Final = 1000
_LONGEST: Final = 64  # of the chunks that are returned; the ICC profile itself is not
_COLOUR: Final = (b"cICP", b"cLLI", b"iCCP", b"sRGB", b"gAMA", b"cHRM")
_GRAY: Final = 0
_HEADER: Final = 16  # offset of the content of IHDR


def colour_chunks(data: bytes) -> dict[bytes, bytes]:
    """Return the content, at most 64 bytes of it, of each colour chunk before the pixels; the first one counts.

    Args:
        data: the whole file.
    """
    found: dict[bytes, bytes] = {}
    at = _SIGNATURE_BYTES
    for _ in range(_MOST_CHUNKS):
        if at + 8 > len(data):
            break
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind in (b"IDAT", b"IEND"):
            break
        if kind in _COLOUR:
            found.setdefault(kind, data[at + 8 : at + 8 + min(length, _LONGEST)])
        at += 12 + length
    return found


def correct_transparency(image: ImageFile.ImageFile, data: bytes) -> None:
    """Scale the transparent gray of an opened PNG like Pillow scales its samples; no pixel is decoded yet.

    Bits of a transparent value that the samples do not have are dropped, as the specification requires.

    Args:
        image: opened by Pillow; ``info["transparency"]`` is changed in place.
        data: the whole file.
    """
    value: Any = image.info.get("transparency")
    if value is None or len(data) < _HEADER + 10:
        return
    bits, colour_type = data[_HEADER + 8], data[_HEADER + 9]
    if bits > 8 or bits not in (1, 2, 4, 8):
        return
    top = (1 << bits) - 1
    if colour_type == _GRAY and isinstance(value, int):
        # Pillow has already made 255 of any value of 1 bit that is not 0.
        image.info["transparency"] = (value & top) * (255 // top)
    elif isinstance(value, tuple):
        image.info["transparency"] = tuple(part & top for part in value)
