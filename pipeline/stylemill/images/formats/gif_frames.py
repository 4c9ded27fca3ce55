"""The frames of a GIF, composed as browsers compose them: the canvas is transparent until a frame paints it.

Pillow fills what no frame has painted, and what a frame clears behind itself, with a colour of the palette. It also
lets the disposal of a frame stand for the frames behind it, and cannot clear an area of an opaque animation. Here
Pillow only decompresses the single frames.

Source: CompuServe, "Graphics Interchange Format, Version 89a", sections 18 to 23.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image, ImageFile

from stylemill.errors import ImageError
from stylemill.images.formats.iso_boxes import Box
from stylemill.images.formats.plugins import open_image

_MOST_FRAMES: Final = 100_000
_HEADER_BYTES: Final = 13
_CLEARS: Final = 2
_RESTORES: Final = 3
_GRAY_RAMP: Final = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)


@dataclass(frozen=True, kw_only=True)
class GifFrame:
    """One frame as it is stored."""

    box: Box
    """Left, top, right and bottom on the canvas in pixels; may reach beyond it."""

    palette: np.ndarray
    """(256, 3) uint8; black behind the colours of the file."""

    num_colors: int
    """Number of colours that the file defines; pixels of other colours are transparent."""

    transparent: int | None
    """Index of the transparent colour."""

    disposal: int
    """What becomes of the area of the frame behind it: 2 cleared, 3 as before the frame, otherwise it stays."""

    duration_ms: int
    interlaced: bool
    start: int
    end: int
    """Place of the compressed indices in the file, including the size of the first code."""


def painted_box(image: ImageFile.ImageFile) -> Box | None:
    """Return the part of the canvas that the first frame of an opened GIF paints; None if it is all of it.

    Args:
        image: opened at its first frame, not loaded.
    """
    extents = image.tile[0].extents if image.tile else None
    if extents is None or (extents[0] <= 0 and extents[1] <= 0 and extents[2:] == image.size):
        return None
    return extents


def transparent_outside(box: Box, size: tuple[int, int], alpha_HW: np.ndarray | None) -> np.ndarray:
    """Return an alpha, (H, W) uint8, that is zero outside a part of the canvas.

    Args:
        box: left, top, right, bottom.
        size: width and height of the canvas in pixels.
        alpha_HW: alpha within the part, None if it is opaque.
    """
    left, top, right, bottom = box
    masked_HW = np.zeros(size[::-1], np.uint8)
    masked_HW[top:bottom, left:right] = 255 if alpha_HW is None else alpha_HW[top:bottom, left:right]
    return masked_HW


def composed_frames(data: bytes, size: tuple[int, int], max_pixels: int) -> Iterator[tuple[Image.Image, int]]:
    """Yield each frame as displayed, mode ``RGBA``, and its duration in milliseconds.

    Args:
        data: the whole file.
        size: width and height of the canvas in pixels.
        max_pixels: limit of the sum of the frames as stored, which may be larger than the canvas.

    Raises:
        ImageError: ``TooManyPixels``.
        OSError: the pixels of a frame are damaged.
    """
    canvas_HWC = np.zeros((size[1], size[0], 4), np.uint8)
    num_pixels = 0
    for number, frame in enumerate(read_gif(data)):
        left, top, right, bottom = frame.box
        num_pixels += (right - left) * (bottom - top)
        if num_pixels > max_pixels:
            raise ImageError(
                "TooManyPixels",
                f"with its frame {number + 1} of {right - left} x {bottom - top} px its frames have {num_pixels:,} px, "
                f"more than max_pixels = {max_pixels:,}; repaint the first frame only with --animation first",
            )
        area_HWC = canvas_HWC[top:bottom, left:right]
        before_HWC = area_HWC.copy() if frame.disposal == _RESTORES else None
        indices_HW = _indices(data, frame)[: area_HWC.shape[0], : area_HWC.shape[1]]
        colors_HWC = frame.palette[indices_HW]
        if number == 0:
            # No one sees these colours, but the network does: they are those that Pillow chooses.
            canvas_HWC[..., :3] = frame.palette[frame.transparent or 0]
        opaque_HW = indices_HW < frame.num_colors
        if frame.transparent is not None:
            opaque_HW &= indices_HW != frame.transparent
        seen_HW = opaque_HW | (area_HWC[..., 3] == 0)
        area_HWC[..., :3][seen_HW] = colors_HWC[seen_HW]
        area_HWC[..., 3][opaque_HW] = 255
        yield Image.fromarray(canvas_HWC.copy()), frame.duration_ms
        if frame.disposal == _CLEARS:
            area_HWC[..., 3] = 0
        elif before_HWC is not None:
            area_HWC[...] = before_HWC


def read_gif(data: bytes) -> Iterator[GifFrame]:
    """Yield the frames of a GIF in order; end at the trailer or at the first damaged block.

    Args:
        data: the whole file.
    """
    flags = data[10] if len(data) > _HEADER_BYTES else 0
    at = _HEADER_BYTES
    common, at = _palette(data, at, flags)
    control = bytes(4)
    for _ in range(_MOST_FRAMES):
        while data[at : at + 1] not in (b",", b";", b""):
            if data[at : at + 1] != b"!":  # stray bytes between blocks, as some programs leave them
                at += 1
                continue
            if data[at + 1 : at + 2] == b"\xf9" and data[at + 2 : at + 3] >= b"\x04":
                control = data[at + 3 : at + 7].ljust(4, b"\0")
            at = _skip_blocks(data, at + 2)
        if data[at : at + 1] != b"," or at + 10 >= len(data):
            return
        left, top, width, height, flags = struct.unpack_from("<4HB", data, at + 1)
        local, start = _palette(data, at + 10, flags)
        colors = local if local is not None else common
        palette = np.zeros((256, 3), np.uint8)
        num_colors = 256 if colors is None else len(colors)
        palette[:num_colors] = _GRAY_RAMP if colors is None else colors
        at = _skip_blocks(data, start + 1)
        yield GifFrame(
            box=(left, top, left + width, top + height),
            palette=palette,
            num_colors=num_colors,
            transparent=control[3] if control[0] & 1 else None,
            disposal=control[0] >> 2 & 7,
            duration_ms=10 * int.from_bytes(control[1:3], "little"),
            interlaced=bool(flags & 0x40),
            start=start,
            end=at,
        )
        control = bytes(4)


def _palette(data: bytes, at: int, flags: int) -> tuple[np.ndarray | None, int]:
    """Return the colours, (N, 3) uint8, of a palette, None if there is none; and where it ends."""
    if not flags & 0x80:
        return None, at
    end = at + (3 << ((flags & 7) + 1))
    content = data[at:end].ljust(end - at, b"\0")
    return np.frombuffer(content, np.uint8).reshape(-1, 3), end


def _skip_blocks(data: bytes, at: int) -> int:
    """Return where a chain of blocks ends, at most the end of the file."""
    while at < len(data) and data[at]:
        at += 1 + data[at]
    return min(at + 1, len(data))


def _indices(data: bytes, frame: GifFrame) -> np.ndarray:
    """Return (H, W) uint8: the frame as an image of its own, without a palette, so that Pillow hands over indices."""
    left, top, right, bottom = frame.box
    size = struct.pack("<HH", right - left, bottom - top)
    screen = b"GIF89a" + size + bytes(3)
    descriptor = b"," + bytes(4) + size + (b"\x40" if frame.interlaced else b"\0")
    image = open_image(screen + descriptor + data[frame.start : frame.end] + b";", "gif")
    image.load()
    return np.asarray(image)
