"""Photoshop documents: which of them hold a picture that is read.

Source: Adobe, Photoshop File Formats Specification (file header, image resources 1057 and others).
"""

from __future__ import annotations

import struct
from typing import Final

from stylemill.errors import ImageError

_MODES: Final = {0: "bitmap", 1: "gray", 2: "palette", 3: "RGB", 4: "CMYK", 7: "multichannel", 8: "duotone", 9: "Lab"}
_READ: Final = frozenset({0, 1, 2, 3, 4, 8, 9})
_HEADER_BYTES: Final = 26
_VERSION_INFO: Final = 1057
_CURE: Final = "save it as PNG or TIFF first"


def check_psd(data: bytes) -> None:
    """Refuse a document whose merged picture is not read, or that has none.

    Args:
        data: the whole file.

    Raises:
        ImageError: ``UnsupportedFormat`` with what the document is, or ``Truncated``.
    """
    if len(data) < _HEADER_BYTES + 4:
        raise ImageError("Truncated", "the PSD data ends inside its header")
    bits, mode = struct.unpack_from(">HH", data, 22)
    if data[4:6] == b"\0\2":
        raise ImageError(
            "UnsupportedFormat", f"it is a large Photoshop document (PSB), which is not supported; {_CURE}"
        )
    if bits not in (1, 8) or mode not in _READ:
        what = f"{_MODES.get(mode, f'mode {mode}')}, {bits} bits"
        raise ImageError("UnsupportedFormat", f"this kind of Photoshop document is not supported ({what}); {_CURE}")
    if not _has_merged_picture(data):
        raise ImageError(
            "UnsupportedFormat",
            "this Photoshop document holds layers only; save it with the option Maximize Compatibility",
        )


def is_bitmap(data: bytes) -> bool:
    """Return whether a document has one bit per pixel, with 1 for black."""
    return data[24:26] == b"\0\0"


def _has_merged_picture(data: bytes) -> bool:
    """Return what the resource "version info" says; True if the document has none."""
    at = _HEADER_BYTES + 4 + int.from_bytes(data[_HEADER_BYTES : _HEADER_BYTES + 4], "big")
    end = min(at + 4 + int.from_bytes(data[at : at + 4], "big"), len(data))
    at += 4
    while at + 12 <= end and data[at : at + 4] == b"8BIM":
        number = int.from_bytes(data[at + 4 : at + 6], "big")
        content = at + 6 + (1 + data[at + 6] + 1) // 2 * 2 + 4  # a name, padded to an even length, and a size
        size = int.from_bytes(data[content - 4 : content], "big")
        if number == _VERSION_INFO and size >= 5 and content + size <= end:
            return data[content + 4] != 0
        at = content + size + size % 2
    return True
