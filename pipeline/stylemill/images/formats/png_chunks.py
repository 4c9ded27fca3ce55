"""The chunks of a PNG file, and those that describe colour and transparency, read without trusting the file.

Pillow skips some of these chunks (cICP, cLLI) and scales gray samples of 2 and 4 bits without the transparent gray.

Source: W3C PNG specification, third edition, sections 5.3, 11.2 and 11.3.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import islice
from typing import Final

from PIL import ImageFile

SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_MOST_CHUNKS: Final = 1000
_LONGEST: Final = 64  # of the chunks that are returned; the ICC profile itself is not
_COLOUR: Final = frozenset((b"cICP", b"cLLI", b"iCCP", b"sRGB", b"gAMA", b"cHRM"))
_TRANSPARENCY: Final = frozenset((b"tRNS",))
_GRAY: Final = 0
_NUM_VALUES: Final = {_GRAY: 1, 2: 3}  # of a transparent value, by the type of colour: gray or RGB
_HEADER: Final = 16  # offset of the content of IHDR


def chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield type, first byte and the byte behind the checksum of each chunk, up to and including the end marker.

    Args:
        data: the whole file. Its last chunk may extend over the end of the file.
    """
    at = len(SIGNATURE)
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        yield kind, at, end
        if kind == b"IEND":
            return
        at = end


def colour_chunks(data: bytes) -> dict[bytes, bytes]:
    """Return the content, at most 64 bytes of it, of each colour chunk before the pixels; the first one counts.

    Args:
        data: the whole file.
    """
    return _before_pixels(data, _COLOUR)


def _before_pixels(data: bytes, kinds: frozenset[bytes]) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    for kind, start, end in islice(chunks(data), _MOST_CHUNKS):
        if kind == b"IDAT":
            break
        if kind in kinds:
            found.setdefault(kind, data[start + 8 : min(end - 4, start + 8 + _LONGEST)])
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
    content = _before_pixels(data, _TRANSPARENCY).get(b"tRNS", b"")
    if bits not in (1, 2, 4, 8) or colour_type not in _NUM_VALUES or len(content) < 2 * _NUM_VALUES[colour_type]:
        return
    top = (1 << bits) - 1
    values = [(value & top) * (255 // top) for value in struct.unpack_from(f">{_NUM_VALUES[colour_type]}H", content)]
    image.info["transparency"] = values[0] if colour_type == _GRAY else tuple(values)
