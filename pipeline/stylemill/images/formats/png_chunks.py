"""The chunks of a PNG file that describe colour and transparency, read without trusting the file.

Pillow skips some of these chunks (cICP, cLLI) and scales gray samples of 2 and 4 bits without the transparent gray.

Source: W3C PNG specification, third edition, sections 5.3, 11.2 and 11.3.
"""

from __future__ import annotations

import struct
from typing import Final

from PIL import ImageFile

_SIGNATURE_BYTES: Final = 8
_MOST_CHUNKS: Final = 1000
_LONGEST: Final = 64  # of the chunks that are returned; the ICC profile itself is not
_COLOUR: Final = frozenset((b"cICP", b"cLLI", b"iCCP", b"sRGB", b"gAMA", b"cHRM"))
_TRANSPARENCY: Final = frozenset((b"tRNS",))
_GRAY: Final = 0
_NUM_VALUES: Final = {_GRAY: 1, 2: 3}  # of a transparent value, by the type of colour: gray or RGB
_HEADER: Final = 16  # offset of the content of IHDR


def colour_chunks(data: bytes) -> dict[bytes, bytes]:
    """Return the content, at most 64 bytes of it, of each colour chunk before the pixels; the first one counts.

    Args:
        data: the whole file.
    """
    return _chunks(data, _COLOUR)


def _chunks(data: bytes, kinds: frozenset[bytes]) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    at = _SIGNATURE_BYTES
    for _ in range(_MOST_CHUNKS):
        if at + 8 > len(data):
            break
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind in (b"IDAT", b"IEND"):
            break
        if kind in kinds:
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
    if "transparency" not in image.info or len(data) < _HEADER + 10:
        return
    bits, colour_type = data[_HEADER + 8], data[_HEADER + 9]
    content = _chunks(data, _TRANSPARENCY).get(b"tRNS", b"")
    if bits not in (1, 2, 4, 8) or colour_type not in _NUM_VALUES or len(content) < 2 * _NUM_VALUES[colour_type]:
        return
    top = (1 << bits) - 1
    values = [(value & top) * (255 // top) for value in struct.unpack_from(f">{_NUM_VALUES[colour_type]}H", content)]
    image.info["transparency"] = values[0] if colour_type == _GRAY else tuple(values)
