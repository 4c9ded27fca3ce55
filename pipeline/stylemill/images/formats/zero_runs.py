"""Holes in compressed data: runs of zero bytes, as an interrupted copy or a lost block of a disk leaves them.

The decoders of WebP, AVIF, HEIF, JPEG 2000 and some compressions of TIFF take zeros as data and return a picture.
Compressed data contains no such runs: whatever repeats is what compression takes out. How long a run in a sound file
can be was measured on pictures of one colour, pages, gradients and patterns up to 12 megapixels, and on public test
files; the limits are at least half as long again. PNG has checksums, JPEG is checked by ``formats.jpeg``.

Three formats need more than a limit. In lossy WebP an even area may be coded in one zero byte for 40 blocks and more:
a run is damage if the picture has too few even blocks for it. In JPEG 2000 an empty packet is one zero byte, so a tile
of one colour may have as many as it has packets. Deflate may code a large even area in zeros, but has a checksum.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
from PIL import Image

from stylemill.errors import ImageError
from stylemill.images.formats.iso_boxes import coded_ranges

_LIMITS: Final = {"webp": 64, "avif": 64, "heif": 64, "jpeg2000": 384, "tiff": 64}
"""Shortest run of zeros in compressed data that is damage, in bytes."""

_VP8_LEAST: Final = 48
_VP8_BLOCKS_PER_ZERO: Final = 16
"""Even areas of lossy WebP files had at least 39 blocks for each zero byte."""
_BLOCK_PX: Final = 16
_EVEN: Final = 2
"""Largest difference within the rows, or within the columns, of an even block, in levels."""

_DEFLATE: Final = frozenset({8, 32946})
_TIFF_WITHOUT_ZEROS: Final = frozenset({4, 5, 34925, 50000, *_DEFLATE})
"""TIFF compressions in whose data zeros are a sign of damage: CCITT Group 4, LZW, LZMA, Zstandard, Deflate."""
_PART_BYTES: Final = 1 << 20

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
    if image_format == "jpeg2000":
        limit = max(limit, 64 + _packets_per_tile(data))
    for start, end in _ranges(data, image_format, tags or {}):
        at = data.find(bytes(limit), start, end)
        if at >= 0 and not (image_format == "tiff" and tags[259] in _DEFLATE and _inflates(data[start:end])):
            raise _damage(image_format, at)


def check_even_areas(data: bytes, image: Image.Image) -> None:
    """Refuse a lossy WebP file with a longer run of zeros than its even areas explain.

    Args:
        data: the whole file.
        image: its picture; the first frame of an animation.

    Raises:
        ImageError: ``Corrupt``.
    """
    runs = [(_longest_run(data, start, end), start) for kind, start, end in _webp_chunks(data) if kind == b"VP8 "]
    run, start = max(runs, default=(0, 0))
    if run and _VP8_BLOCKS_PER_ZERO * run > _num_even_blocks(np.asarray(image.convert("RGB"))) * len(runs):
        raise _damage("webp", data.find(bytes(run), start))


def _damage(image_format: str, at: int) -> ImageError:
    return ImageError("Corrupt", f"the {image_format.upper()} data is damaged: a block of zeros at byte {at:,}")


def _ranges(data: bytes, image_format: str, tags: Any) -> Iterator[Range]:
    if image_format == "webp":
        for kind, start, end in _webp_chunks(data):
            # The alpha channel may be stored as it is; the lowest two bits of its first byte tell.
            if kind == b"VP8L" or (kind == b"ALPH" and start < end and data[start] & 3):
                yield start, end
    elif image_format == "jpeg2000":
        start = data.find(b"\xff\x90\x00\x0a")  # the first tile
        filled = data.rstrip(b"\0")  # zeros behind the end marker are harmless
        yield max(start, 0), len(filled) if filled.endswith(b"\xff\xd9") else len(data)
    elif image_format in ("avif", "heif"):
        yield from coded_ranges(data)
    elif image_format == "tiff" and tags.get(259) in _TIFF_WITHOUT_ZEROS:
        yield from tiff_blocks(tags)


def _inflates(content: bytes) -> bool:
    """Return whether Deflate data is complete and its checksum is right."""
    inflater = zlib.decompressobj()
    try:
        # What does not fit into a part stays inside the inflater, so an empty rest is not the end.
        while not inflater.eof and (inflater.decompress(content, _PART_BYTES) or inflater.unconsumed_tail):
            content = inflater.unconsumed_tail
    except zlib.error:
        return False
    return inflater.eof


def _packets_per_tile(data: bytes) -> int:
    """Return the largest number of packets in a tile of a JPEG 2000 file; 0 if its header is damaged.

    Source: ITU-T T.800, annex A.5.1 (SIZ), A.6.1 (COD) and B.6 (precincts).
    """
    size_at, style_at = data.find(b"\xff\x51"), data.find(b"\xff\x52")
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


def _webp_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, start and end of the content of each chunk, those inside animation frames included."""
    at = 12
    while at + 8 <= len(data):
        kind, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        if kind == b"ANMF":
            at += 8 + 16  # what follows the frame's own fields are chunks again
            continue
        yield kind, at + 8, min(at + 8 + size, len(data))
        at += 8 + size + size % 2


def _longest_run(data: bytes, start: int, end: int) -> int:
    """Return the length of the longest run of zeros if it is at least ``_VP8_LEAST``, otherwise 0."""
    longest = _VP8_LEAST - 1
    while (at := data.find(bytes(longest + 1), start, end)) >= 0:
        start = at + longest + 1
        while start < end and data[start] == 0:
            start += 1
        longest = start - at
    return longest if longest >= _VP8_LEAST else 0


def _num_even_blocks(image_HWC: np.ndarray) -> int:
    """Count the blocks of 16 x 16 px whose rows, or whose columns, have one colour each."""
    height, width = (side // _BLOCK_PX * _BLOCK_PX for side in image_HWC.shape[:2])
    if not height or not width:
        return 1
    blocks = image_HWC[:height, :width, 1].reshape(height // _BLOCK_PX, _BLOCK_PX, width // _BLOCK_PX, _BLOCK_PX)
    blocks = blocks.astype(np.int16)
    along_rows, along_columns = np.ptp(blocks, axis=3).max(axis=1), np.ptp(blocks, axis=1).max(axis=2)
    return int((np.minimum(along_rows, along_columns) <= _EVEN).sum())
