"""JPEG files: their structure, and pixels from a decoder that reports what it has to guess.

libjpeg replaces missing or invalid data by guesses and issues a warning, which Pillow drops. ``read_pixels`` decodes
with libjpeg-turbo through ``simplejpeg``, which stops at the first warning. Warnings that say nothing about the pixels
(bytes between segments, an odd JFIF version, a missing end marker behind complete data) disappear when the file is
reduced to the segments that the pixels need; what is then still reported is damage. Two kinds of damage cause no
warning: a block of zeros that happens to decode, found here by its length, and changed bytes after which the decoder
falls into step again, found in the pixels by ``jpeg_shift``.

Source: ITU-T T.81, annexes B (segments), C (Huffman tables) and G (progressive mode).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import simplejpeg
from PIL import Image

from stylemill.errors import ImageError
from stylemill.images.formats.jpeg_shift import has_shift

_SOI, _EOI, _SOS, _DHT, _DQT, _DRI, _APP0, _APP14 = 0xD8, 0xD9, 0xDA, 0xC4, 0xDB, 0xDD, 0xE0, 0xEE
_MOST_SCANS: Final = 1000
_FILL: Final = re.compile(rb"\xff+")
_NO_LENGTH: Final = frozenset({0x01, *range(0xD0, 0xD9)})
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE: Final = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_ARITHMETIC: Final = frozenset(range(0xC9, 0xD0))
_KEPT: Final = frozenset({_DHT, _DQT, _DRI}) | _FRAMES
_END_OF_SCAN: Final = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)
_JFIF: Final = b"\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"
_ZEROS: Final = bytes(256)
"""Two and a half rows of a photo's blocks; even a page of one colour has such a run only with tables made for it."""

_SPACES: Final = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK"}
_UNKNOWN_LAYOUT: Final = "subsampling"
_LEFT_OVER: Final = re.compile(r"(\d+) extraneous bytes before marker")


@dataclass(kw_only=True)
class _Scan:
    components: list[int]
    """Identifier of each component."""

    first: int
    last: int
    low: int
    start: int
    """Offset of the first byte of compressed data; ``end`` is that of the marker behind it."""

    end: int
    zeros_can_be_sound: bool
    """A long run of zero bits can be an even area: "no change" and "end of block" have all-zero codes."""


@dataclass(kw_only=True)
class JpegStructure:
    """The segments of a JPEG file up to its end marker."""

    scans: list[_Scan] = field(default_factory=list)
    sampling: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Horizontal and vertical sampling factor by component identifier."""

    size_px: tuple[int, int] = (0, 0)
    """Width and height."""

    frame: int = 0
    """Marker of the frame header: 0xC0 for baseline, 0xC2 for progressive ..."""

    needed: list[tuple[int, int]] = field(default_factory=list)
    """First and last offset of the parts of the file that determine the pixels, in order, without SOI and EOI."""

    @property
    def block_px(self) -> tuple[int, int]:
        """Height and width of a minimum coded unit in pixels."""
        factors = self.sampling.values()
        return 8 * max((v for _, v in factors), default=1), 8 * max((h for h, _ in factors), default=1)


def read_structure(data: bytes) -> JpegStructure:
    """Walk through the segments of a JPEG file as libjpeg does: bytes between segments are passed over.

    Raises:
        ImageError: ``Truncated``: the file ends before its first scan; ``Corrupt``: more than 1,000 scans.
    """
    found, at = JpegStructure(), 2
    symbols: dict[tuple[int, int], int] = {}
    while fill := _FILL.search(data, at):
        at = fill.end() - 1
        marker = data[at + 1] if at + 1 < len(data) else 0
        if marker == _EOI:
            break
        if marker == 0 or marker in _NO_LENGTH:
            at += 2
            continue
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        body, end = data[at + 4 : at + 2 + length], at + 2 + max(length, 2)
        if marker == _DHT:
            symbols = symbols | _first_symbols(body)
        elif marker in _FRAMES and len(body) > 6:
            found.frame = marker
            found.size_px = int.from_bytes(body[3:5], "big"), int.from_bytes(body[1:3], "big")
            found.sampling = {body[i]: (body[i + 1] >> 4, body[i + 1] & 15) for i in range(6, len(body) - 2, 3)}
        if marker == _SOS and body:
            match = _END_OF_SCAN.search(data, end)
            scan = _scan(body, end, match.start() if match else len(data), found.frame, symbols)
            found.scans.append(scan)
            found.needed.append((at, scan.end))
            end = scan.end
            if len(found.scans) > _MOST_SCANS:
                raise ImageError("Corrupt", f"the JPEG data is damaged: it has more than {_MOST_SCANS:,} scans")
        elif (
            marker in _KEPT
            or (marker == _APP0 and body.startswith(b"JFIF\0"))
            or (marker == _APP14 and body.startswith(b"Adobe") and len(body) >= 12)
        ):
            found.needed.append((at, end))
        at = end
    if not found.scans:
        raise ImageError("Truncated", "the JPEG data ends before the picture begins")
    return found


def check_structure(found: JpegStructure, data: bytes) -> None:
    """Refuse a file whose compressed data has a hole or lacks scans.

    Raises:
        ImageError: ``Corrupt``, ``Truncated`` or ``UnsupportedFormat``.
    """
    if found.frame in _ARITHMETIC:
        raise ImageError(
            "UnsupportedFormat", "JPEG with arithmetic coding is not supported: its decoder does not report damage"
        )
    for scan in found.scans:
        # Zeros at the end may fill the data up; if they are a part of it, the decoder misses that part.
        at = -1 if scan.zeros_can_be_sound else data.find(_ZEROS, scan.start, scan.end)
        if at >= 0 and data[at : scan.end].strip(b"\0"):
            raise ImageError("Corrupt", f"the JPEG data is damaged: a block of zeros at byte {at:,}")
    if found.frame in _PROGRESSIVE:
        # Lowest bit that is still missing, by component and coefficient.
        missing = {identifier: [99] * 64 for identifier in found.sampling}
        for scan in found.scans:
            for identifier in scan.components:
                for index in range(scan.first, scan.last + 1):
                    missing.get(identifier, [0] * 64)[index] = scan.low
        if any(any(low) for low in missing.values()):
            raise ImageError("Truncated", "the JPEG data is incomplete: scans with its details are not there")
    elif found.sampling.keys() - {identifier for scan in found.scans for identifier in scan.components}:
        raise ImageError("Truncated", "the JPEG data is incomplete: a colour channel is not there")


def read_pixels(data: bytes, mode: str, size: tuple[int, int] | None = None) -> np.ndarray | None:
    """Decode a JPEG file, or refuse it if any of its pixels would have to be guessed.

    Args:
        data: the whole file.
        mode: Pillow's mode of it: ``RGB``, ``L`` or ``CMYK``.
        size: width and height in pixels, the file's or those divided by 2, 4 or 8 and rounded up; the file's if None.

    Returns:
        (H, W, 3) RGB, (H, W) gray or (H, W, 4) CMYK as stored, all uint8; None if the subsampling is unknown to
        TurboJPEG: another decoder must read the file, which has passed ``check_structure``.

    Raises:
        ImageError: ``Truncated`` or ``Corrupt``.
        ValueError: a kind of JPEG that libjpeg-turbo does not decode, in its words.
    """
    found = read_structure(data)
    check_structure(found, data)
    pixels = _decode_complete(data, found, mode, size)
    if pixels is None:
        return None
    if size is None and mode != "CMYK" and has_shift(pixels, *found.block_px):
        raise ImageError("Corrupt", "the JPEG data is damaged: its colours jump in the middle of a row of blocks")
    return pixels[..., 0] if mode == "L" else pixels


def as_picture(stored: np.ndarray, mode: str) -> Image.Image:
    """Return the samples from ``read_pixels`` as a picture in Pillow's mode; CMYK inverted, as Pillow decodes it."""
    return Image.fromarray(255 - stored, "CMYK") if mode == "CMYK" else Image.fromarray(stored)


def _decode_complete(data: bytes, found: JpegStructure, mode: str, size: tuple[int, int] | None) -> np.ndarray | None:
    try:
        return _decode(data, mode, size)
    except ValueError as error:
        if _UNKNOWN_LAYOUT in str(error):
            return None
    parts = [b"\xff\xd8", *(_usual(data[start:end], found) for start, end in found.needed)]
    filled = len(parts[-1]) - len(parts[-1].rstrip(b"\0"))
    # Some cameras fill the data up with zeros. A last byte of zeros, or two, may belong to the data.
    for num_zeros in sorted({filled, *range(min(filled, 3))}, reverse=True):
        complete = b"".join([*parts[:-1], parts[-1][: len(parts[-1]) - filled + num_zeros], b"\xff\xd9"])
        try:
            return _decode(complete, mode, size)
        except ValueError as error:
            refusal = _refusal(str(error))
    raise refusal


def _decode(data: bytes, mode: str, size: tuple[int, int] | None) -> np.ndarray:
    width_px, height_px = size or (0, 0)
    return simplejpeg.decode_jpeg(data, _SPACES[mode], min_height=height_px, min_width=width_px, strict=True)


def _usual(part: bytes, found: JpegStructure) -> bytes:
    """Return a segment without oddities that libjpeg warns about and that do not change how it decodes."""
    marker = part[1]
    if marker == _APP0:
        return _JFIF
    if marker == _SOS and found.frame not in _PROGRESSIVE:
        # The parameters that a sequential frame allows; some writers leave zeros there.
        at = 2 + int.from_bytes(part[2:4], "big")
        return part[: at - 3] + b"\x00\x3f\x00" + part[at:]
    if marker == _APP14:
        transform = 2 if len(found.sampling) == 4 else 1
        return part if part[15] in (0, transform) else part[:15] + bytes([transform]) + part[16:]
    return part


def _refusal(message: str) -> Exception:
    """Return the error for a message of libjpeg."""
    if "remature end" in message:
        return ImageError("Truncated", "the JPEG data ends too early: the lower part of the picture is not there")
    if _LEFT_OVER.search(message):
        message = "data is left over behind the last block"
    if message.startswith("Unsupported"):
        return ValueError(message)
    return ImageError("Corrupt", f"the JPEG data is damaged ({message.removeprefix('Corrupt JPEG data: ')})")


def _first_symbols(tables: bytes) -> dict[tuple[int, int], int]:
    """Return the symbol with the all-zero code of each table in a DHT segment."""
    found, at = {}, 0
    while at + 17 < len(tables):
        found[tables[at] >> 4, tables[at] & 15] = tables[at + 17]
        at += 17 + sum(tables[at + 1 : at + 17])
    return found


def _scan(header: bytes, start: int, end: int, frame: int, symbols: dict[tuple[int, int], int]) -> _Scan:
    """Read the header of a scan, the content of an SOS segment."""
    count = min(header[0], (len(header) - 1) // 2)
    with_tables = [(header[1 + 2 * i], header[2 + 2 * i] >> 4, header[2 + 2 * i] & 15) for i in range(count)]
    first, last, bits = header.ljust(4 + 2 * count, b"\0")[1 + 2 * count : 4 + 2 * count]
    is_progressive = frame in _PROGRESSIVE
    first = min(first, 63) if is_progressive else 0
    # A refinement of the mean colours has no codes, only bits.
    is_even = is_progressive and first == 0 and bits >> 4 > 0
    if not is_even:
        even_dc = first > 0 or all(symbols.get((0, dc_table)) == 0 for _, dc_table, _ in with_tables)
        with_ac = not is_progressive or first > 0
        even_ac = not with_ac or all(symbols.get((1, ac_table), 0) & 15 == 0 for *_, ac_table in with_tables)
        is_even = even_dc and even_ac
    return _Scan(
        components=[identifier for identifier, _, _ in with_tables],
        first=first,
        last=min(last, 63) if is_progressive else 63,
        low=bits & 15 if is_progressive else 0,
        start=start,
        end=end,
        zeros_can_be_sound=is_even,
    )
