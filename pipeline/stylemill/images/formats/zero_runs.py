"""Holes in compressed data: runs of zero bytes, as an interrupted copy or a lost block of a disk leaves them.

The decoders of WebP, AVIF, HEIF, JPEG 2000 and some compressions of TIFF take zeros as data and return a picture.
Compressed data contains no such runs: whatever repeats is what compression takes out. How long a run in a sound file
can be was measured on pictures of one colour, pages, gradients and patterns up to 12 megapixels, and on public test
files; the limits are at least half as long again. PNG has checksums, JPEG is checked by ``formats.jpeg``.

Three formats need more than a limit. In WebP an even or smooth area may be coded in zeros: a run is damage if the
picture has too few such areas for it. In JPEG 2000 an empty packet is one zero byte, so a tile of one colour may have
as many as it has packets. Deflate may code a large even area in zeros, but has a checksum.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
from PIL import Image

from stylemill.errors import ImageError
from stylemill.images.formats.deflate import is_complete
from stylemill.images.formats.iso_boxes import boxes, coded_ranges

_LIMITS: Final = {"avif": 64, "heif": 64, "jpeg2000": 384, "tiff": 64}
"""Shortest run of zeros in compressed data that is damage, in bytes."""

_WEBP_LEAST: Final = 48
_WEBP_RUN: Final = re.compile(rb"\0{%d,}" % _WEBP_LEAST)
_LOSSY_PIXELS_PER_ZERO: Final = 4096
"""Even areas of lossy WebP files had at least 39 blocks of 256 px for each zero byte."""
_LOSSLESS_PIXELS_PER_ZERO: Final = 1.6
"""Smooth areas of lossless WebP files, and of alpha, had at least 1.78 px for each zero byte, most 6 and more. Where
zeros have replaced the details of a photograph, they decode to 0.5 px each, rarely to more than 1."""
_SMOOTH_PART: Final = 0.8
"""Part of the pixels, of an area that is coded in zeros, that must be in smooth blocks."""
_BLOCK_PX: Final = 16
_SMOOTH: Final = 2
"""Largest mixed second difference of neighbouring pixels in a smooth block, in levels."""

_GROUP_4, _LZW = 4, 5
_DEFLATE: Final = frozenset({8, 32946})
_TIFF_WITHOUT_ZEROS: Final = frozenset({_GROUP_4, _LZW, *_DEFLATE})
"""TIFF compressions in whose data zeros are a sign of damage. LZMA and Zstandard keep zeros between noise."""

Range = tuple[int, int]
"""First byte of compressed data and the byte behind the last."""


def check_zeros(data: bytes, image_format: str, tags: Any = None) -> None:
    """Refuse a file in whose compressed data there is a hole.

    Args:
        data: the whole file.
        image_format: its format, from ``sniff``.
        tags: of the first page of a TIFF file: a mapping of tag numbers to values.

    Raises:
        ImageError: ``Corrupt``.
    """
    limit = _LIMITS.get(image_format, 0)
    for start, end in _ranges(data, image_format, tags or {}):
        if image_format == "jpeg2000":
            limit = min(max(limit, 64 + _packets_per_tile(data, start)), len(data))
        at = data.find(bytes(limit), start, end)
        if at < 0:
            continue
        if image_format == "tiff":
            is_deflate = tags[259] in _DEFLATE
            # Zeros behind the end code of LZW and Group 4 are harmless; without that code the decoder reports an error.
            if is_complete(memoryview(data)[start:end]) if is_deflate else not data[at:end].strip(b"\0"):
                continue
        raise _damage(image_format, at)


def check_smooth_areas(data: bytes, image: Image.Image, frame: int = 0) -> None:
    """Refuse a WebP file with a longer run of zeros than the smooth areas of its picture explain.

    Args:
        data: the whole file.
        image: one frame as displayed.
        frame: its number.

    Raises:
        ImageError: ``Corrupt``.
    """
    for kind, start, end in _webp_frame(data, frame):
        # The alpha channel may be stored as it is; the lowest two bits of its first byte tell.
        if kind not in (b"VP8 ", b"VP8L", b"ALPH") or (kind == b"ALPH" and start < end and not data[start] & 3):
            continue
        run = _longest_run(data, start, end)
        if not run:
            continue
        pixels = image.getchannel("A") if kind == b"ALPH" and "A" in image.getbands() else image.convert("RGB")
        least = run * (_LOSSY_PIXELS_PER_ZERO if kind == b"VP8 " else _LOSSLESS_PIXELS_PER_ZERO)
        seen = np.asarray(pixels)
        is_damaged = _num_smooth_pixels(seen) < least
        if kind != b"VP8 " and not data[end - run : end].strip(b"\0"):
            # Lossless data is in order of rows, so zeros at its end are the lower part.
            lower = seen[-_BLOCK_PX * -(-int(least) // (_BLOCK_PX * image.width)) :]
            is_damaged |= _num_smooth_pixels(lower) < _SMOOTH_PART * lower.shape[0] * lower.shape[1]
        if is_damaged:
            raise _damage("webp", data.find(bytes(run), start))


def _damage(image_format: str, at: int) -> ImageError:
    return ImageError("Corrupt", f"the {image_format.upper()} data is damaged: a block of zeros at byte {at:,}")


def _ranges(data: bytes, image_format: str, tags: Any) -> Iterator[Range]:
    if image_format == "jpeg2000":
        start, end = next((place[1:] for place in boxes(data, 0, len(data)) if place[0] == b"jp2c"), (0, len(data)))
        filled = start + len(data[start:end].rstrip(b"\0"))
        # Zeros behind the end marker are harmless.
        yield start, filled if data[filled - 2 : filled] == b"\xff\xd9" else end
    elif image_format in ("avif", "heif"):
        yield from coded_ranges(data)
    elif image_format == "tiff" and tags.get(259) in _TIFF_WITHOUT_ZEROS:
        yield from sorted(set(tiff_blocks(tags)))


def _packets_per_tile(data: bytes, start: int) -> int:
    """Return the largest number of packets in a tile of the JPEG 2000 codestream that starts there; 0 if it is damaged.

    Source: ITU-T T.800, annex A.5.1 (SIZ), A.6.1 (COD) and B.6 (precincts).
    """
    size_at, style_at = (data.find(marker, start) for marker in (b"\xff\x51", b"\xff\x52"))
    if size_at < 0 or style_at < 0 or len(data) < max(size_at + 40, style_at + 14):
        return 0
    width, height, _, _, tile_width, tile_height, _, _, num_channels = struct.unpack_from(">8IH", data, size_at + 6)
    has_precincts, _, num_layers, _, num_levels = struct.unpack_from(">BBHBB", data, style_at + 4)
    num_precincts = 0
    for level in range(min(num_levels, 32) + 1):
        at = style_at + 14 + level
        exponents = data[at] if has_precincts & 1 and at < len(data) else 0xFF
        shrunk = min(num_levels, 32) - level
        across, down = shrunk + (exponents & 15), shrunk + (exponents >> 4)
        num_precincts += ((min(width, tile_width) >> across) + 2) * ((min(height, tile_height) >> down) + 2)
    return num_layers * num_channels * num_precincts


def tiff_blocks(tags: Any) -> list[Range]:
    """Return where the strips or tiles of a TIFF page are stored."""
    offsets, counts = (tags.get(324), tags.get(325)) if 324 in tags else (tags.get(273), tags.get(279))
    return [(offset, offset + count) for offset, count in zip(_integers(offsets), _integers(counts), strict=False)]


def _integers(values: Any) -> Sequence[int]:
    return [value for value in values if isinstance(value, int)] if isinstance(values, tuple) else []


def _webp_frame(data: bytes, frame: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, start and end of the content of the chunks of a still picture, or of one frame of an animation."""
    chunks = list(_webp_chunks(data, 12, len(data)))
    frames = [(start + 16, end) for kind, start, end in chunks if kind == b"ANMF"]
    if not frames:
        yield from chunks
    elif frame < len(frames):
        yield from _webp_chunks(data, *frames[frame])


def _webp_chunks(data: bytes, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    while at + 8 <= end:
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        yield data[at : at + 4], at + 8, min(at + 8 + size, end)
        at += 8 + size + size % 2


def _longest_run(data: bytes, start: int, end: int) -> int:
    """Return the length of the longest run of zeros if it is at least ``_WEBP_LEAST``, otherwise 0."""
    if data.find(bytes(_WEBP_LEAST), start, end) < 0:  # much faster than the expression, and usual
        return 0
    return max(found.end() - found.start() for found in _WEBP_RUN.finditer(data, start, end))


def _num_smooth_pixels(image_HWC: np.ndarray) -> int:
    """Count the pixels in blocks of 16 x 16 px of one colour, or with a gradient."""
    plane_HW = image_HWC[..., 1] if image_HWC.ndim == 3 else image_HWC
    rows, columns = (side // _BLOCK_PX for side in plane_HW.shape)
    num = 0
    for row in range(rows):
        strip = plane_HW[row * _BLOCK_PX : (row + 1) * _BLOCK_PX, : columns * _BLOCK_PX].astype(np.int16)
        blocks = strip.reshape(_BLOCK_PX, columns, _BLOCK_PX)
        mixed = np.diff(np.diff(blocks, axis=0), axis=2)
        num += int((np.abs(mixed).max(axis=(0, 2)) <= _SMOOTH).sum())
    return num * _BLOCK_PX * _BLOCK_PX
