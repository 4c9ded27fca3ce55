"""Chunks of a PNG file that are sound, but that Pillow refuses together with the picture.

Pillow raises an error for a text or a profile that inflates beyond a limit or is compressed in an unknown way, for a
chunk that is shorter than its fields, and for frames out of order. The picture is there without these: diagram editors
and image generators store whole documents as text. ``AncillaryChunks`` says which chunks must be left out, and inflates
no more than Pillow's limits.

Source: W3C PNG specification, third edition, sections 11.3 (ancillary chunks) and 13.2 (errors).
"""

from __future__ import annotations

import zlib
from typing import Final

from stylemill.images.formats.deflate import count_inflated

LARGEST_TEXT_BYTES: Final = 16 << 20
"""Largest text or profile in one chunk, inflated; real files have profiles and XMP over Pillow's own limit of 1 MiB."""

_ALL_TEXTS_BYTES: Final = 64 << 20
"""Pillow's limit of all texts together, which is fixed when its plugin is imported."""

_TRANSPARENCY_BYTES: Final = {0: 2, 2: 6}
"""Shortest tRNS by the type of colour: gray and RGB; for a palette it may have any length."""

_SHORTEST: Final = {
    b"gAMA": 4,
    b"cHRM": 32,
    b"sRGB": 1,
    b"pHYs": 9,
    b"acTL": 8,
    b"fcTL": 26,
    b"fdAT": 4,
}
_NUMBERED: Final = frozenset((b"fcTL", b"fdAT"))


class AncillaryChunks:
    """The check of one file; it is asked for each chunk in the order of the file."""

    def __init__(self, data: bytes, colour_type: int) -> None:
        """Start at the first chunk.

        Args:
            data: the whole file.
            colour_type: from its header.
        """
        self._data = data
        self._content = memoryview(data)
        self._shortest = _SHORTEST | {b"tRNS": _TRANSPARENCY_BYTES.get(colour_type, 0)}
        self._room_bytes = _ALL_TEXTS_BYTES
        self._next_number = 0

    def is_readable(self, kind: bytes, start: int, end: int) -> bool:
        """Return whether Pillow reads a chunk.

        Args:
            kind: its type.
            start: offset of its content.
            end: offset behind its content.
        """
        if end - start < self._shortest.get(kind, 0):
            return False
        if kind in _NUMBERED:
            # A gap means that a part of the animation is missing; the first of all describes a frame.
            number, self._next_number = self._next_number, self._next_number + 1
            found = int.from_bytes(self._data[start : start + 4], "big")
            return found == number and (number > 0 or kind == b"fcTL")
        if kind in (b"zTXt", b"iCCP", b"iTXt", b"tEXt"):
            return self._has_room(kind, start, end)
        return True

    def _has_room(self, kind: bytes, start: int, end: int) -> bool:
        """Return whether a text or profile is within the limits; whatever is inflated counts towards all texts."""
        packed = self._packed_at(kind, start, end)
        if packed is None:
            return False
        most = self._room_bytes if packed == end else min(LARGEST_TEXT_BYTES, self._room_bytes)
        num_bytes, is_damaged = packed - start, False
        if packed < end:
            try:
                num_bytes = count_inflated([self._content[packed:end]], most)
            except zlib.error:
                # Pillow passes over it, but how much was inflated is not known.
                num_bytes, is_damaged = most, True
        self._room_bytes -= min(num_bytes, self._room_bytes)
        return num_bytes < most or is_damaged

    def _packed_at(self, kind: bytes, start: int, end: int) -> int | None:
        """Return where the part of a chunk begins that Pillow inflates.

        Returns:
            The offset; ``end`` if nothing is inflated; None if Pillow refuses what stands in front.
        """
        key_end = self._data.find(b"\0", start, end)
        if kind == b"iTXt":
            flags = self._data[key_end + 1 : key_end + 3]  # whether it is compressed, and how
            # Behind these two bytes stand a language and a translated keyword, each with a zero.
            language_end = self._data.find(b"\0", key_end + 3, end)
            translated_end = self._data.find(b"\0", language_end + 1, end)
            is_whole = key_end >= 0 <= language_end and translated_end >= 0
            return translated_end + 1 if is_whole and flags[0] and not flags[1] else end
        if kind == b"tEXt":
            return end
        if key_end < 0 or key_end + 1 >= end:
            return end if kind == b"zTXt" else None
        return key_end + 2 if self._data[key_end + 1] == 0 else None
