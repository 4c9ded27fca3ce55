"""PNG files: the checksums of their chunks.

Pillow checks the checksums of chunks in front of the pixels, and refuses the picture even where only a text is damaged;
those of the pixel data it skips. ``checked`` does what browsers and libpng do: damage in a chunk that the pixels need
is an error, any other damaged chunk is left out.

Source: W3C PNG specification, third edition, sections 5 (chunks) and 13.2 (errors).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Final

from PIL import Image

from stylemill.errors import ImageError

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_HEADER: Final = 16
"""Offset of the content of the first chunk, IHDR."""
_CHANNELS: Final = {2: 3, 4: 2, 6: 4}
_ADAM7: Final = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""First column and row, and steps, of the passes of an interlaced picture."""
_PART_BYTES: Final = 1 << 20
_ANIMATION: Final = frozenset({b"acTL", b"fcTL", b"fdAT"})


def stated_size(data: bytes) -> tuple[int, int] | None:
    """Return width and height in pixels from the header, None if the file does not begin with one."""
    if data[12:16] != b"IHDR" or len(data) < _HEADER + 8:
        return None
    width_px, height_px = struct.unpack_from(">II", data, _HEADER)
    return width_px, height_px


def checked(data: bytes, *, all_frames: bool) -> tuple[bytes, list[str]]:
    """Check a PNG file's chunks.

    Args:
        data: the whole file.
        all_frames: all frames of an animation are needed, not only the first picture.

    Returns:
        The file without damaged chunks that the pixels do not need, and notes that name these.

    Raises:
        ImageError: ``Truncated`` or ``Corrupt``: a chunk that the pixels need is cut off, damaged or not there.
    """
    if not data.startswith(_SIGNATURE):
        raise ImageError("Corrupt", "the PNG data is damaged: a transfer as text has changed its signature")
    damaged, seen, end = set(), set(), 0
    for kind, start, end in _chunks(data):
        needed = not kind.isalpha() or kind[:1].isupper() or (all_frames and kind in _ANIMATION)
        if end > len(data) and (needed or b"IDAT" not in seen):
            raise ImageError("Truncated", f"the PNG data is cut off inside its chunk {_name(kind)}")
        checksum = int.from_bytes(data[end - 4 : end], "big")
        if end > len(data) or zlib.crc32(memoryview(data)[start + 4 : end - 4]) != checksum:
            if needed:
                raise ImageError("Corrupt", f"the PNG data is damaged: wrong checksum of the chunk {_name(kind)}")
            damaged.add(kind)
        seen.add(kind)
        if kind == b"IEND":
            break
    if b"IDAT" not in seen or (all_frames and seen & _ANIMATION and b"IEND" not in seen):
        raise ImageError("Truncated", "the PNG data is cut off: its end is not there")
    notes = [] if b"IEND" in seen else ["its end marker is not there"]
    if damaged:
        notes += [f"a damaged chunk was ignored: {_name(kind)}" for kind in sorted(damaged)]
        # Frames depend on each other: without all of them, the picture for viewers without animation is left.
        dropped = damaged | _ANIMATION if damaged & _ANIMATION else damaged
        data = b"".join([_SIGNATURE, *(data[start:end] for kind, start, end in _chunks(data) if kind not in dropped)])
    return data, notes


def check_rows(data: bytes, image: Image.Image) -> None:
    """Refuse a PNG whose compressed data, inside sound chunks, has fewer rows than its header announces.

    Pillow leaves the rows black. Only a picture that ends in black, or that is interlaced, is counted again.

    Args:
        data: the whole file.
        image: the same file, loaded by Pillow.

    Raises:
        ImageError: ``Truncated``.
    """
    width, height, bits, colour_type, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, _HEADER)
    last_row = image.crop((0, image.height - 1, image.width, image.height))
    if not interlaced and last_row.getbbox(alpha_only=False) is not None:
        return
    bits *= _CHANNELS.get(colour_type, 1)
    passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    expected = 0
    for left, top, across, down in passes:
        columns, rows = -(-(width - left) // across), -(-(height - top) // down)
        expected += rows * (1 + -(-columns * bits // 8)) if columns > 0 and rows > 0 else 0
    inflater, found = zlib.decompressobj(), 0
    for kind, start, end in _chunks(data):
        rest = data[start + 8 : end - 4] if kind == b"IDAT" else b""
        while rest and found < expected and not inflater.eof:
            found += len(inflater.decompress(rest, _PART_BYTES))
            rest = inflater.unconsumed_tail
    if found + len(inflater.flush()) < expected:
        raise ImageError("Truncated", "the PNG data ends too early: the lower part of the picture is not there")


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield type, first and last offset of each chunk; the last one may extend over the end of the file."""
    at = len(_SIGNATURE)
    while at + 8 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        yield data[at + 4 : at + 8], at, end
        at = end


def _name(kind: bytes) -> str:
    return kind.decode("latin-1") if kind.isalpha() else kind.hex(" ")
