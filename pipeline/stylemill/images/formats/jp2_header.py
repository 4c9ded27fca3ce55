"""The header of a JPEG 2000 file: what its channels mean, and what Pillow cannot decode rightly.

Pillow takes the components in stored order as gray, RGB and alpha. It does not read channel definitions, ICC profiles
and component mappings, and it misplaces subsampled components that do not divide a tile evenly.

Sources: ITU-T T.800, annex A (codestream) and annex I (JP2 boxes); ITU-T T.801, annex M (colour spaces).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from stylemill.errors import ImageError
from stylemill.images.formats.iso_boxes import boxes

SRGB: Final = 16
GRAY: Final = 17
SYCC: Final = 18
CMYK: Final = 12
BILEVEL_INVERTED: Final = 0
_BILEVEL: Final = 15
_NUM_COLORS: Final = {SRGB: 3, GRAY: 1, SYCC: 3, CMYK: 4, BILEVEL_INVERTED: 1, _BILEVEL: 1}
_OTHER_SPACES: Final = {
    1: "YCbCr",
    3: "YCbCr",
    4: "YCbCr",
    9: "PhotoYCC",
    11: "CMY",
    13: "YCCK",
    14: "CIELab",
    19: "CIEJab",
    20: "e-sRGB",
    21: "ROMM-RGB",
    24: "e-sYCC",
}
_CODESTREAM: Final = b"\xff\x4f\xff\x51"
_MOST_COMPONENTS: Final = 4
_MOST_BITS: Final = 16
_MOST_TILES: Final = 65_535
_CURE: Final = "which is not supported; convert it to PNG or TIFF first"


@dataclass(frozen=True, kw_only=True)
class Component:
    """One component of the codestream."""

    bits: int
    step_x: int
    step_y: int
    """Distance of its samples on the grid of the picture."""


@dataclass(frozen=True, kw_only=True)
class Palette:
    """Colours of which a component holds the indices."""

    columns: tuple[tuple[int, ...], ...]
    """For each channel the values of all entries."""

    bits: tuple[int, ...]
    """Depth of each channel."""


@dataclass(frozen=True, kw_only=True)
class Channel:
    """An entry of a channel definition box."""

    number: int
    """Number of the channel, from 0."""

    kind: int
    """0: colour, 1: opacity, 2: opacity with which the colours are multiplied; others have no stated meaning."""

    color: int
    """For colour: which one, from 1. 0: the whole picture."""


@dataclass(frozen=True, kw_only=True)
class Jp2Header:
    """What the header states, as far as it is not damaged."""

    start: int
    """Offset of the codestream."""

    components: tuple[Component, ...]
    space: int | None = None
    """Enumerated colour space; None: a profile, or not stated."""

    space_at: int | None = None
    """Offset of the number of the colour space in the file."""

    profile: bytes | None = None
    """ICC profile."""

    palette: Palette | None = None
    palette_at: tuple[int, ...] = ()
    """Offsets of the names of the boxes of palette and component mapping."""

    mapping: tuple[tuple[int, int, int], ...] = ()
    """For each channel: its component, 0 (direct) or 1 (through the palette), and the column of the palette."""

    channels: tuple[Channel, ...] = ()
    """Channel definitions; empty: the channels are the colours in order, then alpha."""

    @property
    def num_colors(self) -> int:
        """Number of colours of the stated space; by the number of channels if none is stated."""
        num_channels = len(self.mapping) if self.palette else len(self.components)
        if self.space is not None:
            return _NUM_COLORS[self.space]
        of_profile = {b"GRAY": 1, b"RGB ": 3, b"CMYK": 4}.get((self.profile or b"")[16:20], 0)
        if of_profile and of_profile <= num_channels <= of_profile + 1:
            return of_profile
        return 1 if num_channels <= 2 else 3


def read_jp2(data: bytes) -> Jp2Header | None:
    """Return the header of a JPEG 2000 file, None if it is so damaged that the decoder must say what is wrong.

    Raises:
        ImageError: ``UnsupportedFormat``: the file may be sound, but would be decoded wrongly.
    """
    found: dict[bytes, tuple[int, int]] = {}
    colors: list[tuple[int, int]] = []
    start = 0
    if not data.startswith(_CODESTREAM):
        places = {kind: (first, last) for kind, first, last in reversed(list(boxes(data, 0, len(data))))}
        if b"jp2h" not in places or b"jp2c" not in places:
            return None
        start = places[b"jp2c"][0]
        for kind, first, last in boxes(data, *places[b"jp2h"]):
            if kind == b"colr":
                colors.append((first, last))
            found.setdefault(kind, (first, last))
    components = _components(data, start)
    if not components:
        return None
    space, space_at, profile = _color_space(data, colors)
    palette = _palette(data[slice(*found.get(b"pclr", (0, 0)))])
    header = Jp2Header(
        start=start,
        components=components,
        space=space,
        space_at=space_at,
        profile=profile,
        palette=palette,
        palette_at=tuple(found[kind][0] - 4 for kind in (b"pclr", b"cmap") if kind in found),
        mapping=_mapping(data[slice(*found.get(b"cmap", (0, 0)))], palette),
        channels=_channels(data[slice(*found.get(b"cdef", (0, 0)))]),
    )
    _refuse(header, data)
    return header


def _components(data: bytes, start: int) -> tuple[Component, ...]:
    """Return the components of a codestream, empty if its header is damaged."""
    at = start + len(_CODESTREAM)
    if data[start:at] != _CODESTREAM or at + 38 > len(data):
        return ()
    (count,) = struct.unpack_from(">H", data, at + 36)
    if not count or at + 38 + 3 * count > len(data):
        return ()
    triples = (data[at + 38 + 3 * index : at + 41 + 3 * index] for index in range(count))
    components = tuple(Component(bits=(depth & 0x7F) + 1, step_x=x, step_y=y) for depth, x, y in triples)
    return components if all(part.step_x and part.step_y for part in components) else ()


def _color_space(data: bytes, colors: list[tuple[int, int]]) -> tuple[int | None, int | None, bytes | None]:
    """Return the number of the colour space and its offset, or the profile, of the first colour box that is usable.

    Raises:
        ImageError: ``UnsupportedFormat``.
    """
    others = []
    for first, last in colors:
        method = data[first] if first < last else 0
        if method == 1 and first + 7 <= last:
            number = int.from_bytes(data[first + 3 : first + 7], "big")
            if number in _NUM_COLORS:
                return number, first + 3, None
            others.append(number)
        elif method in (2, 3) and first + 3 < last:
            return None, None, data[first + 3 : last]
    if others:
        name = _OTHER_SPACES.get(others[0], f"number {others[0]}")
        raise ImageError("UnsupportedFormat", f"it is a JPEG 2000 in the colour space {name}, {_CURE}")
    return None, None, None


def _palette(body: bytes) -> Palette | None:
    if len(body) < 3:
        return None
    num_entries, num_columns = struct.unpack_from(">HB", body)
    bits = tuple((depth & 0x7F) + 1 for depth in body[3 : 3 + num_columns])
    widths = [(depth + 7) // 8 for depth in bits]
    at = 3 + num_columns
    if not num_entries or not num_columns or at + num_entries * sum(widths) > len(body):
        return None
    columns: list[list[int]] = [[] for _ in bits]
    for _ in range(num_entries):
        for column, width in zip(columns, widths, strict=True):
            column.append(int.from_bytes(body[at : at + width], "big"))
            at += width
    return Palette(columns=tuple(tuple(column) for column in columns), bits=bits)


def _mapping(body: bytes, palette: Palette | None) -> tuple[tuple[int, int, int], ...]:
    if palette is None:
        return ()
    found = tuple(struct.unpack_from(">HBB", body, at) for at in range(0, len(body) - 3, 4))
    return found or tuple((0, 1, column) for column in range(len(palette.columns)))


def _channels(body: bytes) -> tuple[Channel, ...]:
    if len(body) < 2:
        return ()
    count = min(int.from_bytes(body[:2], "big"), (len(body) - 2) // 6)
    entries = (struct.unpack_from(">3H", body, 2 + 6 * index) for index in range(count))
    return tuple(Channel(number=number, kind=kind, color=color) for number, kind, color in entries)


def _refuse(header: Jp2Header, data: bytes) -> None:
    """Refuse files that Pillow would decode wrongly, or would call damaged though they are sound.

    Raises:
        ImageError: ``UnsupportedFormat``.
    """
    components = header.components
    if len(components) > _MOST_COMPONENTS:
        raise ImageError("UnsupportedFormat", f"it is a JPEG 2000 of {len(components)} channels, {_CURE}")
    if max(part.bits for part in components) > _MOST_BITS:
        bits = max(part.bits for part in components)
        raise ImageError("UnsupportedFormat", f"it is a JPEG 2000 of {bits} bits per channel, {_CURE}")
    least = _NUM_COLORS.get(header.space, 0) if header.space is not None else 0
    if not header.palette and least and not least <= len(components) <= min(least + 1, _MOST_COMPONENTS):
        raise ImageError(
            "UnsupportedFormat", f"it is a JPEG 2000 of {len(components)} channels for {least} colours, {_CURE}"
        )
    if any(part.step_x > 1 or part.step_y > 1 for part in components) and (
        len(components) < 3 or not _divides(header, data)
    ):
        raise ImageError(
            "UnsupportedFormat", f"it is a JPEG 2000 of an odd size with colours of a lower resolution, {_CURE}"
        )
    if header.palette:
        columns = len(header.palette.columns)
        for component, through, column in header.mapping:
            if component >= len(components) or through > 1 or (through and column >= columns):
                raise ImageError("UnsupportedFormat", f"it is a JPEG 2000 with an unusual palette, {_CURE}")
        if len(components) > 2:
            raise ImageError("UnsupportedFormat", f"it is a JPEG 2000 with a palette and several channels, {_CURE}")


def _divides(header: Jp2Header, data: bytes) -> bool:
    """Return whether the sides of all tiles are multiples of the steps of all components."""
    numbers = struct.unpack_from(">8I", data, header.start + 8)
    size, origin, tile, tile_origin = numbers[0:2], numbers[2:4], numbers[4:6], numbers[6:8]
    for axis in (0, 1):
        steps = {(part.step_x, part.step_y)[axis] for part in header.components}
        if not tile[axis] or (size[axis] - tile_origin[axis]) // tile[axis] > _MOST_TILES:
            return False
        edges = {origin[axis], size[axis], *range(tile_origin[axis], size[axis], tile[axis])}
        if any(edge % step for edge in edges if edge >= origin[axis] for step in steps):
            return False
    return True
