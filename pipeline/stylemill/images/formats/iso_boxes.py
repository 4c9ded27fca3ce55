"""AVIF and HEIF files: where the compressed data is, and properties of the primary picture that Pillow does not read.

Pillow hands over the pixels, the ICC profile and the rotation of such a file, but not the colour by code points, the
clean aperture and the peak brightness. The boxes come from untrusted files: every size is checked against its parent,
every loop is bounded, and nothing is recursive.

Sources: ISO/IEC 14496-12 (boxes, sample entries), ISO/IEC 23008-12 (item properties).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from typing import Final

_MOST_BOXES: Final = 10_000
_MOST_EXTENTS: Final = 10_000
_LONGEST_PROPERTY: Final = 64  # bytes that are read of one; many items may share a large one
_SAMPLE_ENTRY: Final = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd")
_SAMPLE_ENTRY_BYTES: Final = 78  # fields of a visual sample entry before its boxes
_CODED: Final = (b"av01", b"hvc1", b"hev1", b"avc1", b"vvc1")
_PROPERTIES: Final = (b"colr", b"clap", b"clli", b"ispe")

Box = tuple[int, int, int, int]
"""Left, top, right and bottom in pixels of the stored picture."""


@dataclass(frozen=True, kw_only=True)
class CodePoints:
    """Colour told by numbers instead of a profile; 2 means unspecified. Source: ITU-T H.273."""

    primaries: int
    """ColourPrimaries."""

    transfer: int
    """TransferCharacteristics."""


@dataclass(frozen=True, kw_only=True)
class CleanAperture:
    """The part of the stored picture that is shown, before it is rotated and mirrored."""

    width_px: Fraction
    height_px: Fraction
    """Size of the part."""

    right_px: Fraction
    down_px: Fraction
    """Offset of the centre of the part from the centre of the stored picture."""

    def box(self, width_px: int, height_px: int) -> Box | None:
        """Return left, top, right and bottom within a stored picture of this size; None if they are outside it."""
        left = round(Fraction(width_px) / 2 + self.right_px - self.width_px / 2)
        top = round(Fraction(height_px) / 2 + self.down_px - self.height_px / 2)
        right, bottom = left + round(self.width_px), top + round(self.height_px)
        fits = 0 <= left < right <= width_px and 0 <= top < bottom <= height_px
        return (left, top, right, bottom) if fits else None


@dataclass(frozen=True, kw_only=True)
class PictureProperties:
    """The properties of the primary picture that Pillow does not hand over."""

    code_points: CodePoints | None = None
    """From a colour box of the type ``nclx``."""

    aperture: CleanAperture | None = None

    damaged_aperture: bool = False
    """The file has a clean aperture, but its numbers make no sense."""

    size_px: tuple[int, int] | None = None
    """Width and height of the stored picture; None if the file does not state them."""

    codec: str = ""
    """Type of the item with the compressed data, of the first tile in a picture of tiles: ``av01``, ``hvc1`` ..."""

    peak_cd_m2: int | None = None
    """Brightest pixel in candela per square metre, from the content light level; None if it is not told."""

    def shown_box(self, size: tuple[int, int]) -> tuple[Box | None, str | None]:
        """Return the part of a stored picture that is shown, None for all of it, and a note or None.

        Args:
            size: width and height of the stored picture in pixels.
        """
        if self.aperture is None and not self.damaged_aperture:
            return None, None
        box = self.aperture.box(*size) if self.aperture else None
        if box is None:
            return None, "its clean aperture was ignored because it is not within the picture"
        return (None if box == (0, 0, *size) else box), None


def read_properties(data: bytes) -> PictureProperties:
    """Return the properties of the primary picture of an AVIF or HEIF file; those that are damaged are left out.

    Args:
        data: the whole file.
    """
    inside = _meta(data)
    properties = _of_item(data, inside)
    if not properties:
        properties = _of_track(data)
    found: dict[bytes, bytes] = {}
    for kind, body in properties:
        if kind == b"colr" and body[:4] != b"nclx":
            continue  # an ICC profile: Pillow hands it over
        found.setdefault(kind, body)
    colour, aperture, light, size = (found.get(kind, b"") for kind in _PROPERTIES)
    clean = _aperture(aperture)
    peak = int.from_bytes(light[:2], "big")
    return PictureProperties(
        code_points=_code_points(colour),
        aperture=clean,
        damaged_aperture=bool(aperture) and clean is None,
        size_px=(int.from_bytes(size[4:8], "big"), int.from_bytes(size[8:12], "big")) if len(size) >= 12 else None,
        codec=_codec(data, inside),
        peak_cd_m2=peak or None,
    )


def coded_ranges(data: bytes) -> list[tuple[int, int]]:
    """Return start and end of the compressed data of all pictures in an AVIF or HEIF file: tiles, alpha, previews.

    Args:
        data: the whole file. What its index places outside it is left out, and so is what stands behind the first
            10,000 places.

    Returns:
        The ranges in the order of the file; none overlaps another.
    """
    inside = _meta(data)
    if b"iloc" not in inside or b"iinf" not in inside:
        return []
    types = _item_types(data, *inside[b"iinf"])
    content = inside.get(b"idat", (0, 0))[0]
    found = []
    for item, method, start, length in islice(_extents(data[slice(*inside[b"iloc"])]), _MOST_EXTENTS):
        first = start + (content if method == 1 else 0)
        if types.get(item) in _CODED and method in (0, 1) and first + length <= len(data):
            found.append((first, first + length))
    return _without_overlaps(found)


def _without_overlaps(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return ranges in order, so that no byte is in two of them; those that only touch stay apart, empty ones go."""
    joined: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if start == end:
            continue
        if joined and start < joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined


def boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield the kind, the start and the end of the content of each box; stop at the first damaged one.

    Args:
        data: the whole file.
        start: where the first box starts.
        end: where the box around them ends.
    """
    end = min(end, len(data))
    for _ in range(_MOST_BOXES):
        if start + 8 > end:
            return
        size, kind = struct.unpack_from(">I4s", data, start)
        content = start + 8
        if size == 1:
            if content + 8 > end:
                return
            (size,) = struct.unpack_from(">Q", data, content)
            content += 8
        stop = start + size if size else end
        if stop < content or stop > end:
            return
        yield kind, content, stop
        start = stop


def _find(data: bytes, start: int, end: int, kind: bytes) -> tuple[int, int] | None:
    """Return start and end of the content of the first box of a kind."""
    return next((place[1:] for place in boxes(data, start, end) if place[0] == kind), None)


def _meta(data: bytes) -> dict[bytes, tuple[int, int]]:
    """Return start and end of the content of each box in the ``meta`` box, by kind; empty if there is none."""
    meta = _find(data, 0, len(data), b"meta")
    return {kind: (first, last) for kind, first, last in boxes(data, meta[0] + 4, meta[1])} if meta else {}


def _of_item(data: bytes, inside: dict[bytes, tuple[int, int]]) -> list[tuple[bytes, bytes]]:
    """Return kind and content of the properties of the primary item, in order.

    A picture composed of tiles may leave its colour to the tiles, so those of the first tile follow.
    """
    if b"pitm" not in inside or b"iprp" not in inside:
        return []
    primary = _primary(data, inside[b"pitm"])
    items = [primary, *_first_tile(data, inside.get(b"iref"), primary)]
    parts = {kind: (first, last) for kind, first, last in boxes(data, *inside[b"iprp"])}
    if b"ipco" not in parts or b"ipma" not in parts:
        return []
    places = list(boxes(data, *parts[b"ipco"]))
    indices = _associations(data[slice(*parts[b"ipma"])], items)
    properties = []
    for position, item in enumerate(items):
        for index in indices.get(item, []):
            if not 0 < index <= len(places):
                continue
            kind, first, last = places[index - 1]
            if kind == b"colr" or (position == 0 and kind in _PROPERTIES):
                properties.append((kind, data[first : min(last, first + _LONGEST_PROPERTY)]))
    return properties


def _first_tile(data: bytes, references: tuple[int, int] | None, primary: int) -> list[int]:
    """Return the item from which a composed picture is derived first, if there is one."""
    if references is None:
        return []
    start, end = references
    wide = start < end and data[start] != 0
    layout = ">IHI" if wide else ">HHH"
    for kind, first, last in boxes(data, start + 4, end):
        if kind == b"dimg" and first + struct.calcsize(layout) <= last:
            source, count, tile = struct.unpack_from(layout, data, first)
            if source == primary and count:
                return [tile]
    return []


def _associations(body: bytes, items: list[int]) -> dict[int, list[int]]:
    """Return the numbers of the properties of the items, counted from 1."""
    found: dict[int, list[int]] = {}
    if len(body) < 8:
        return found
    wide_item, wide_index = body[0] >= 1, bool(body[3] & 1)
    step = 2 if wide_index else 1
    at = 8
    for _ in range(min(int.from_bytes(body[4:8], "big"), len(body))):
        id_bytes = 4 if wide_item else 2
        item = int.from_bytes(body[at : at + id_bytes], "big")
        at += id_bytes
        if at >= len(body):
            break
        count = body[at]
        at += 1
        if item in items:
            entries = [body[entry : entry + step] for entry in range(at, at + count * step, step)]
            found[item] = [int.from_bytes(entry, "big") & (0x7FFF if wide_index else 0x7F) for entry in entries]
        at += count * step
    return found


def _of_track(data: bytes) -> list[tuple[bytes, bytes]]:
    """Return kind and content of the boxes in the first sample entry of an image sequence without a still picture."""
    start, end = 0, len(data)
    for kind in _SAMPLE_ENTRY:
        place = _find(data, start, end, kind)
        if place is None:
            return []
        start, end = place
    entry = next(boxes(data, start + 8, end), None)
    if entry is None:
        return []
    _, start, end = entry
    return [
        (kind, data[first : min(last, first + _LONGEST_PROPERTY)])
        for kind, first, last in boxes(data, start + _SAMPLE_ENTRY_BYTES, end)
        if kind in _PROPERTIES
    ]


def _code_points(body: bytes) -> CodePoints | None:
    if len(body) < 10:
        return None
    primaries, transfer = struct.unpack_from(">HH", body, 4)
    return CodePoints(primaries=primaries, transfer=transfer)


def _aperture(body: bytes) -> CleanAperture | None:
    """Return the clean aperture of a ``clap`` box, None if it is damaged."""
    if len(body) < 32:
        return None
    numbers = struct.unpack(">IIIIiIiI", body[:32])
    if not all(numbers[1::2]):
        return None
    width, height, right, down = (Fraction(*numbers[at : at + 2]) for at in range(0, 8, 2))
    return CleanAperture(width_px=width, height_px=height, right_px=right, down_px=down)


def _item_types(data: bytes, start: int, end: int) -> dict[int, bytes]:
    """Return the type of each item by its number, from an ``iinf`` box."""
    entries = start + (6 if start < end and data[start] == 0 else 8)
    found = {}
    for kind, first, last in boxes(data, entries, end):
        if kind != b"infe" or last - first < 12 or data[first] not in (2, 3):
            continue
        id_bytes = 2 if data[first] == 2 else 4
        at = first + 4 + id_bytes + 2
        found[int.from_bytes(data[first + 4 : first + 4 + id_bytes], "big")] = data[at : at + 4]
    return found


def _codec(data: bytes, inside: dict[bytes, tuple[int, int]]) -> str:
    """Return the type of the primary item, or of its first tile; empty if the file does not state it."""
    if b"iinf" not in inside or b"pitm" not in inside:
        return ""
    types, primary = _item_types(data, *inside[b"iinf"]), _primary(data, inside[b"pitm"])
    item = next(iter(_first_tile(data, inside.get(b"iref"), primary)), primary)
    return types.get(item, b"").decode("latin-1")


def _primary(data: bytes, place: tuple[int, int]) -> int:
    """Return the number of the primary item from a ``pitm`` box."""
    first, last = place
    return int.from_bytes(data[first + 4 : min(first + (8 if data[first : first + 1] > b"\0" else 6), last)], "big")


def _extents(body: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Yield item, construction method, offset and length of each extent in an ``iloc`` box."""
    if len(body) < 8:
        return
    version = body[0]
    sizes = body[4] >> 4, body[4] & 15, body[5] >> 4, body[5] & 15 if version in (1, 2) else 0
    at, id_bytes = 6, 4 if version == 2 else 2

    def number(num_bytes: int) -> int:
        nonlocal at
        at += num_bytes
        return int.from_bytes(body[at - num_bytes : at], "big")

    for _ in range(min(number(id_bytes), len(body))):
        item = number(id_bytes)
        method = number(2) & 15 if version in (1, 2) else 0
        number(2)  # where the data is if not in this file
        base = number(sizes[2])
        most = len(body) if sizes[0] or sizes[1] or sizes[3] else 1  # extents without any field are all the same
        for _ in range(min(number(2), most)):
            number(sizes[3])
            offset, length = number(sizes[0]), number(sizes[1])
            if at > len(body):
                return
            yield item, method, base + offset, length
        if at > len(body):
            return
