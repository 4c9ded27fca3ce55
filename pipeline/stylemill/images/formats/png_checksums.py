"""PNG files: the checksums of their chunks.

Pillow checks the checksums of chunks in front of the pixels, and refuses the picture even where only a text is damaged;
those of the pixel data it skips. ``checked`` does what browsers do: damage in a chunk that the pixels need is an error,
any other chunk that is damaged, or that Pillow cannot read (``png_ancillary``), is left out. The pixels need

- the header IHDR, the pixel data IDAT and every other chunk that the specification calls critical (its name begins with
  a capital letter), but for a palette PLTE in a picture that is not a palette picture: there it is a suggestion. The
  end marker IEND has no content: it is there as soon as its name is;
- the transparency tRNS in front of the pixel data of a picture without alpha samples;
- acTL, fcTL and fdAT if all frames of an animation are wanted.

A colour profile, a gamma and code points are not needed: without them the picture is taken as sRGB, with a note.

Source: W3C PNG specification, third edition, sections 5 (chunks), 11.2, 11.3.1 and 13.2 (errors).
"""

from __future__ import annotations

import struct
import zlib
from typing import Final

from PIL import Image

from stylemill.errors import ImageError
from stylemill.images.formats.deflate import count_inflated
from stylemill.images.formats.png_ancillary import AncillaryChunks
from stylemill.images.formats.png_chunks import SIGNATURE, chunks

_HEADER: Final = 16
"""Offset of the content of the first chunk, IHDR."""
_HEADER_STARTS: Final = struct.pack(">I4s", 13, b"IHDR")
_COLOUR_TYPE: Final = _HEADER + 9
_PALETTE: Final = 3
_WITHOUT_ALPHA: Final = (0, 2, _PALETTE)
_CHANNELS: Final = {2: 3, 4: 2, 6: 4}
_ADAM7: Final = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""First column and row, and steps, of the passes of an interlaced picture."""
_ANIMATION: Final = frozenset({b"acTL", b"fcTL", b"fdAT"})


def stated_size(data: bytes) -> tuple[int, int] | None:
    """Return width and height in pixels from the header, None if the file does not begin with one."""
    if data[8:_HEADER] != _HEADER_STARTS or len(data) < _HEADER + 8:
        return None
    width_px, height_px = struct.unpack_from(">II", data, _HEADER)
    return width_px, height_px


def checked(data: bytes, *, all_frames: bool) -> tuple[bytes, list[str]]:
    """Check a PNG file's chunks.

    Args:
        data: the whole file.
        all_frames: all frames of an animation are needed, not only the first picture.

    Returns:
        The file without damaged and unreadable chunks that the pixels do not need, and notes that name these.

    Raises:
        ImageError: ``Truncated`` or ``Corrupt``: a chunk that the pixels need is cut off, damaged or not there;
            ``UnsupportedFormat``: a PNG of Apple's own kind.
    """
    if not data.startswith(SIGNATURE):
        raise ImageError("Corrupt", "the PNG data is damaged: a transfer as text has changed its signature")
    _check_header(data)
    seen: set[bytes] = set()
    damaged: dict[int, bytes] = {}
    unreadable: dict[int, bytes] = {}
    ancillary = AncillaryChunks(data, _colour_type(data))
    for kind, start, end in chunks(data):
        needed = _is_needed(data, kind, seen, all_frames=all_frames)
        seen.add(kind)
        if kind == b"IEND":
            break
        if end > len(data) and (needed or b"IDAT" not in seen):
            raise ImageError("Truncated", f"the PNG data is cut off inside its chunk {_name(kind)}")
        checksum = int.from_bytes(data[end - 4 : end], "big")
        if end > len(data) or zlib.crc32(memoryview(data)[start + 4 : end - 4]) != checksum:
            if needed:
                raise ImageError("Corrupt", f"the PNG data is damaged: wrong checksum of the chunk {_name(kind)}")
            damaged[start] = kind
        elif not ancillary.is_readable(kind, start + 8, end - 4):
            if all_frames and kind in _ANIMATION:
                raise ImageError("Corrupt", f"the PNG data is damaged: its chunk {_name(kind)} breaks the animation")
            unreadable[start] = kind
    if b"IDAT" not in seen or (all_frames and seen & _ANIMATION and b"IEND" not in seen):
        raise ImageError("Truncated", "the PNG data is cut off: its end is not there")
    notes = [] if b"IEND" in seen else ["its end marker is not there"]
    notes += [f"a damaged chunk was ignored: {_name(kind)}" for kind in sorted(set(damaged.values()))]
    notes += [f"a chunk that cannot be read was ignored: {_name(kind)}" for kind in sorted(set(unreadable.values()))]
    left_out = damaged | unreadable
    if left_out:
        # Frames depend on each other: without all of them, the picture for viewers without animation is left.
        dropped = frozenset[bytes]() if _ANIMATION.isdisjoint(left_out.values()) else _ANIMATION
        kept = (data[start:end] for kind, start, end in chunks(data) if start not in left_out and kind not in dropped)
        data = b"".join([SIGNATURE, *kept])
    return data, notes


def _check_header(data: bytes) -> None:
    """Refuse a file whose first chunk is whole but is not a PNG header."""
    first = next(chunks(data), None)
    if first is None:
        return
    kind, start, end = first
    if kind == b"CgBI":
        raise ImageError(
            "UnsupportedFormat",
            "it is an Apple-optimised PNG (CgBI), which is not supported; convert it to a plain PNG",
        )
    if data[start:_HEADER] == _HEADER_STARTS:
        return
    what = f"its header has {end - start - 12:,} bytes instead of 13"
    if kind != b"IHDR":
        what = f"it begins with the chunk {_name(kind)} instead of its header (IHDR)"
    raise ImageError("Corrupt", f"the PNG data is damaged: {what}")


def _is_needed(data: bytes, kind: bytes, seen: set[bytes], *, all_frames: bool) -> bool:
    if kind == b"PLTE":
        return _colour_type(data) == _PALETTE
    if kind == b"tRNS":
        return _colour_type(data) in _WITHOUT_ALPHA and b"IDAT" not in seen
    return not kind.isalpha() or kind[:1].isupper() or (all_frames and kind in _ANIMATION)


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
    content = memoryview(data)
    parts = (content[start + 8 : end - 4] for kind, start, end in chunks(data) if kind == b"IDAT")
    if count_inflated(parts, expected) < expected:
        raise ImageError("Truncated", "the PNG data ends too early: the lower part of the picture is not there")


def _colour_type(data: bytes) -> int:
    """Return the type of colour from the header, that of a palette if the header is cut off."""
    return data[_COLOUR_TYPE] if len(data) > _COLOUR_TYPE else _PALETTE


def _name(kind: bytes) -> str:
    return kind.decode("latin-1") if kind.isalpha() else kind.hex(" ")
