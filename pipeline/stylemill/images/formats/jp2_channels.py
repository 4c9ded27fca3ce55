"""The channels of a JPEG 2000 file in their right order, depth and meaning, around what Pillow decodes.

Pillow moves samples of other depths to 8 bits by shifting: 4 bits end at 240 instead of 255, and in colour pictures of
more than 8 bits the brightest samples overflow to 0. It hands palettes and alpha over by position.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

import numpy as np
from PIL import Image, ImageFile

from stylemill.errors import ImageError
from stylemill.images.formats.jp2_header import (
    BILEVEL_INVERTED,
    CMYK,
    GRAY,
    SRGB,
    SYCC,
    Channel,
    Jp2Header,
)

_COLOR: Final = 0
_OPACITY: Final = 1
_MULTIPLIED: Final = 2
_SIZES: Final = 38  # bytes of the SIZ segment before the components
_QUANTIZATION: Final = (0xFF5C, 0xFF5D)
_TILE: Final = 0xFF90
_MOST_SEGMENTS: Final = 10_000


def readable(data: bytes, header: Jp2Header) -> bytes:
    """Return a file that Pillow decodes to its plain components: without a palette, and not as YCC.

    Args:
        data: the whole file.
        header: its header.
    """
    if not header.palette and header.space != SYCC:
        return data
    changed = bytearray(data)
    if header.palette:
        for at in header.palette_at:
            changed[at : at + 4] = b"free"
    if header.space_at is not None:
        struct.pack_into(">I", changed, header.space_at, GRAY if len(header.components) <= 2 else SRGB)
    return bytes(changed)


def arrange(
    image: Image.Image, header: Jp2Header, data: bytes, reopen: Callable[[bytes], ImageFile.ImageFile]
) -> tuple[Image.Image, str | None]:
    """Return the decoded picture with its channels in their right order, depth and meaning, and a note or None.

    Args:
        image: decoded from ``readable``.
        header: of the file.
        data: the file from which ``image`` was decoded.
        reopen: opens a file of this format.

    Raises:
        ImageError: ``UnsupportedFormat``.
    """
    if _is_plain(image, header):
        return image, None
    stored = _components(image, header, data, reopen)
    channels_HW, defined = _channels(stored, header)
    colors = [_color(channels_HW, defined, color) for color in range(1, header.num_colors + 1)]
    alphas = [entry for entry in defined if entry.kind in (_OPACITY, _MULTIPLIED) and entry.number < len(channels_HW)]
    if header.space == BILEVEL_INVERTED:
        colors = [255 - color for color in colors]
    picture = _merged(colors, header)
    if alphas:
        picture = _with_alpha(picture, channels_HW[alphas[0].number], multiplied=alphas[0].kind == _MULTIPLIED)
    picture.info = {key: value for key, value in image.info.items() if key != "transparency"}
    num_dropped = len(channels_HW) - len(colors) - len(alphas[:1])
    return picture, f"{num_dropped} of its channels without a stated meaning were dropped" if num_dropped > 0 else None


def _is_plain(image: Image.Image, header: Jp2Header) -> bool:
    """Return whether Pillow has decoded the picture rightly."""
    depths = {part.bits for part in header.components}
    colors = header.num_colors
    natural = (*((index, _COLOR, index + 1) for index in range(colors)), (colors, _OPACITY, 0))
    given = tuple(sorted((entry.number, entry.kind, entry.color) for entry in header.channels))
    expected = {1: ("L", "LA", "I;16"), 3: ("RGB", "RGBA"), 4: ("CMYK",)}[colors]
    return (
        header.palette is None
        and header.space not in (SYCC, BILEVEL_INVERTED)
        and (max(depths) > 8 if image.mode == "I;16" else depths == {8})
        and (not given or given == natural[: len(header.components)])
        and image.mode in expected
    )


def _components(
    image: Image.Image, header: Jp2Header, data: bytes, reopen: Callable[[bytes], ImageFile.ImageFile]
) -> list[np.ndarray]:
    """Return the components as stored, each (H, W) uint8 or uint16 with the values that the file has.

    Components of more than 8 bits beside others come from Pillow with 8 bits.
    """
    bands = [np.array(band) for band in image.split()]
    if len(bands) != len(header.components):
        raise ImageError(
            "UnsupportedFormat",
            f"it is a JPEG 2000 of {len(header.components)} channels for {header.num_colors} colours, which is not "
            "supported; convert it to PNG or TIFF first",
        )
    depths = [part.bits for part in header.components]
    if image.mode != "I;16" and max(depths) > 8:
        _restore_overflow(bands, header, data, reopen)
    top = 16 if image.mode == "I;16" else 8
    return [band >> max(top - depth, 0) for band, depth in zip(bands, depths, strict=True)]


def _restore_overflow(
    bands: list[np.ndarray], header: Jp2Header, data: bytes, reopen: Callable[[bytes], ImageFile.ImageFile]
) -> None:
    """Set samples that have overflowed to 0 to 255.

    The file is decoded a second time, changed so that its samples fill the middle half of their range only. There, dark
    and bright samples are on different sides of 128.
    """
    by_pillow = header.space is None and any(part.step_x > 1 or part.step_y > 1 for part in header.components[1:3])
    halved = None if by_pillow else _halved(data, header)
    if halved is None:
        raise ImageError(
            "UnsupportedFormat",
            f"it is a JPEG 2000 of {max(part.bits for part in header.components)} bits per channel in an unusual "
            "coding, which is not supported; convert it to PNG or TIFF first",
        )
    second = reopen(halved)
    second.load()
    for band, other, part in zip(bands, second.split(), header.components, strict=True):
        if part.bits > 8:
            band[(band == 0) & (np.asarray(other) >= 128)] = 255


def _halved(data: bytes, header: Jp2Header) -> bytes | None:
    """Return a file whose samples fill the middle half of their range, None if its coding does not allow it.

    Without quantization the samples get one bit more: they stay, and the level to which they are added doubles. With
    quantization its steps are halved, at the cost of one guard bit, so that the number of bit planes stays.
    """
    changed = bytearray(data)
    at = header.start + 2
    reversible: bool | None = None
    for _ in range(_MOST_SEGMENTS):
        if at + 4 > len(data):
            return None
        marker, length = struct.unpack_from(">HH", data, at)
        if marker == _TILE:
            break
        if marker in _QUANTIZATION:
            style_at = at + 4 + (0 if marker == _QUANTIZATION[0] else 1)
            style = data[style_at]
            if reversible not in (None, style & 31 == 0):
                return None
            reversible = style & 31 == 0
            if not reversible and not _halve_steps(changed, style_at, at + 2 + length):
                return None
        at += 2 + length
    if reversible:
        for index in range(len(header.components)):
            changed[header.start + 4 + _SIZES + 3 * index] += 1
    return None if reversible is None else bytes(changed)


def _halve_steps(changed: bytearray, style_at: int, end: int) -> bool:
    """Halve the steps of a quantization segment in place; return whether it is possible."""
    if changed[style_at] >> 5 == 0 or end > len(changed):
        return False
    changed[style_at] -= 1 << 5
    for at in range(style_at + 1, end - 1, 2):
        step = int.from_bytes(changed[at : at + 2], "big") + (1 << 11)
        if step > 0xFFFF:
            return False
        struct.pack_into(">H", changed, at, step)
    return True


def _channels(stored: list[np.ndarray], header: Jp2Header) -> tuple[list[np.ndarray], list[Channel]]:
    """Return the channels, each (H, W) uint8, behind the palette; and their definitions."""
    depths = [min(part.bits, 8 * band.itemsize) for part, band in zip(header.components, stored, strict=True)]
    if header.palette:
        channels_HW = []
        for component, through, column in header.mapping:
            values_HW = stored[component]
            if through:
                colors = _scaled(np.array(header.palette.columns[column], np.uint64), header.palette.bits[column])
                channels_HW.append(colors[np.minimum(values_HW, len(colors) - 1)])
            else:
                channels_HW.append(_scaled(values_HW, depths[component]))
    else:
        channels_HW = [_scaled(band, depth) for band, depth in zip(stored, depths, strict=True)]
    if header.channels:
        return channels_HW, list(header.channels)
    defined = [Channel(number=number, kind=_COLOR, color=number + 1) for number in range(header.num_colors)]
    if len(channels_HW) == header.num_colors + 1:
        defined.append(Channel(number=header.num_colors, kind=_OPACITY, color=0))
    return channels_HW, defined


def _scaled(values: np.ndarray, bits: int) -> np.ndarray:
    """Return values of a depth of at most 38 bits, of any shape, as uint8."""
    top = (1 << bits) - 1
    if bits == 8:
        return values.astype(np.uint8)
    if bits > 16:
        return (values >> (bits - 8)).astype(np.uint8)
    scaled = ((np.arange(top + 1, dtype=np.uint32) * 255 + top // 2) // top).astype(np.uint8)
    return scaled[np.minimum(values, top)]


def _color(channels_HW: list[np.ndarray], defined: list[Channel], color: int) -> np.ndarray:
    for entry in defined:
        if entry.kind == _COLOR and entry.color == color and entry.number < len(channels_HW):
            return channels_HW[entry.number]
    raise ImageError(
        "UnsupportedFormat",
        f"it is a JPEG 2000 that does not say which channel is colour {color}; convert it to PNG or TIFF first",
    )


def _merged(colors: list[np.ndarray], header: Jp2Header) -> Image.Image:
    bands = [Image.fromarray(np.ascontiguousarray(color)) for color in colors]
    if len(bands) == 1:
        return bands[0]
    if header.space == SYCC:
        return Image.merge("YCbCr", bands).convert("RGB")
    return Image.merge("CMYK" if len(bands) == 4 or header.space == CMYK else "RGB", bands)


def _with_alpha(picture: Image.Image, alpha_HW: np.ndarray, *, multiplied: bool) -> Image.Image:
    if picture.mode == "CMYK":
        picture = picture.convert("RGB")
    picture = picture.copy()
    picture.putalpha(Image.fromarray(np.ascontiguousarray(alpha_HW)))
    if not multiplied:
        return picture
    straight = Image.frombytes("RGBa", picture.size, picture.convert("RGBA").tobytes()).convert("RGBA")
    return straight if picture.mode == "RGBA" else straight.convert("LA")
