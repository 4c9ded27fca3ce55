"""Recognise image formats by content; the name of a file is never considered.

``sniff`` needs the first bytes only. ``is_lossless`` and ``is_truncated`` look at the container of a whole file. None
of these functions decodes pixels, and none trusts a size field further than a comparison or a bounded search.
"""

from __future__ import annotations

import re
import struct
import zlib
from typing import Final

SNIFF_BYTES: Final = 4096
"""Number of leading bytes that ``sniff`` needs."""

_MAGIC: Final[tuple[tuple[bytes, str], ...]] = (
    (b"\xff\xd8", "jpeg"),
    (b"\x89PNG", "png"),  # a transfer in text mode damages the rest of the signature
    (b"PNG\r\n", "png"),
    (b"GIF8", "gif"),
    (b"II*\x00", "tiff"),
    (b"MM\x00*", "tiff"),
    (b"II+\x00", "tiff"),
    (b"MM\x00+", "bigtiff"),
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "jpeg2000"),
    (b"\xff\x4f\xff\x51", "jpeg2000"),
    (b"8BPS", "psd"),
    (b"qoif", "qoi"),
    (b"DDS ", "dds"),
    (b"icns", "icns"),
    (b"\x59\xa6\x6a\x95", "sun"),
    (b"/* XPM */", "xpm"),
    # Recognised, but not decoded.
    (b"\xff\x0a", "jxl"),
    (b"\x00\x00\x00\x0cJXL \r\n\x87\n", "jxl"),
    (b"II\xbc\x01", "jpegxr"),
    (b"v/1\x01", "exr"),
    (b"#?RADIANCE", "hdr"),
    (b"#?RGBE", "hdr"),
    (b"%!PS", "eps"),
    (b"\xc5\xd0\xd3\xc6", "eps"),
    (b"SIMPLE  =", "fits"),
    (b"AT&TFORM", "djvu"),
    (b"gimp xcf", "xcf"),
    (b"\xd7\xcd\xc6\x9a", "wmf"),
    (b"BPG\xfb", "bpg"),
    (b"FLIF", "flif"),
    (b"\x97JB2\r\n\x1a\n", "jbig2"),
    (b"FUJIFILMCCD-RAW", "raw"),
    (b"IIU\x00", "raw"),
    (b"IIRO", "raw"),
    (b"IIRS", "raw"),
    (b"MMOR", "raw"),
    (b"II\x1a\x00\x00\x00HEAPCCDR", "raw"),
    (b"FOVb", "raw"),
    (b"\x00MRM", "raw"),
    (b"id=ImageMagick", "miff"),
    (b"\x8aMNG\r\n\x1a\n", "mng"),
    (b"\x8bJNG\r\n\x1a\n", "jng"),
    (b"\xabKTX ", "ktx"),
    (b"SDPX", "dpx"),
    (b"XPDS", "dpx"),
    (b"\x80\x2a\x5f\xd7", "cineon"),
    (b"Image type: ", "im"),
    (b"BLP1", "blp"),
    (b"BLP2", "blp"),
    (b"\xffWPC", "wpg"),
    (b"LBLSIZE=", "vicar"),
    (b"\xb1\x68\xde\x3a", "dcx"),
    (b"FTEX", "ftex"),
    (b"\x80\xe8\x00\x00", "pixar"),
    (b"DanM", "msp"),
    (b"LinS", "msp"),
    (b"Paint Shop Pro Image File", "psp"),
    (b"P7 332", "xv"),
    (b"P7\n", "pam"),
    (b"PF\n", "pfm"),
    (b"PF\r\n", "pfm"),
    (b"PF ", "pfm"),
    (b"farbfeld", "farbfeld"),
    (b"8BPB", "psb"),
    (b"PDN3", "pdn"),
    (b"PVR\x03", "pvr"),
    (b"\x13\xab\xa1\x5c", "astc"),
    (b"VTF\x00", "vtf"),
    (b"CSFCHUNK", "clip"),
    (b"PG ML", "pgx"),
    (b"PG LM", "pgx"),
    (b"NITF0", "nitf"),
    (b"NSIF0", "nitf"),
    (b"\x0aP\x00\x00", "jxs"),
    (b"\xff\x10\xff\x50", "jxs"),
)

_MAGIC_INSIDE: Final[tuple[tuple[int, bytes, str], ...]] = (
    (128, b"DICM", "dicom"),
    (8, b"ILBM", "ilbm"),
    (8, b"PBM ", "ilbm"),
    (8, b"CDR", "cdr"),
    (2048, b"PCD_IPI", "pcd"),
    (30, b"mimetypeapplication/x-krita", "krita"),
    (30, b"mimetypeimage/openraster", "openraster"),
    (522, b"\x00\x11\x02\xff\x0c\x00", "pict"),
)

READABLE: Final[frozenset[str]] = frozenset(
    {
        "jpeg",
        "png",
        "gif",
        "tiff",
        "jpeg2000",
        "webp",
        "avif",
        "heif",
        "bmp",
        "ico",
        "cur",
        "ppm",
        "psd",
        "qoi",
        "dds",
        "icns",
        "sun",
        "sgi",
        "pcx",
        "tga",
        "xbm",
        "xpm",
    }
)
"""Formats that are decoded; ``heif`` needs the extra of that name."""

_BMP_HEADERS: Final = frozenset({12, 16, 40, 52, 56, 64, 108, 124})
_WEBP_CHUNKS_SEEN: Final = 1 << 20
_TAIL_BYTES: Final = 4096


def sniff(head: bytes) -> str | None:
    """Return the image format of a file, or None if it is not an image.

    Args:
        head: the first ``SNIFF_BYTES`` of a file, or all of it.

    Returns:
        A name in ``READABLE``, the name of another image format that is recognised but not decoded (``eps``, ``svg``,
        ``raw`` ...), or None.
    """
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return "raw" if name == "tiff" and head[8:10] == b"CR" else name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    if head[4:8] == b"ftyp":
        return _sniff_iso(head)
    for offset, magic, name in _MAGIC_INSIDE:
        if head[offset : offset + len(magic)] == magic:
            return name
    if head[:3] == b"\x1f\x8b\x08":
        return _sniff_gzip(head)
    return _sniff_weak(head) or ("svg" if _is_svg(head) else None)


def is_lossless(data: bytes, image_format: str) -> bool:
    """Return whether a file was compressed without loss.

    Args:
        data: the whole file.
        image_format: its format, from ``sniff``.
    """
    if image_format == "webp":
        return b"VP8L" in data[12:16] or (data[12:16] == b"VP8X" and b"VP8 " not in data[:_WEBP_CHUNKS_SEEN])
    if image_format == "jpeg2000":
        # COD marker: length, style, progression, layers, multi-component transform, levels, block size and style;
        # then the wavelet: 1 is the reversible one.
        at = data.find(b"\xff\x52\x00")
        return 0 <= at < len(data) - 13 and data[at + 13] == 1
    return image_format not in ("jpeg", "avif", "heif")


def is_truncated(data: bytes, image_format: str) -> bool:
    """Return whether the end of a file is missing, according to the sizes and end markers in its container.

    Args:
        data: the whole file.
        image_format: its format, from ``sniff``.
    """
    if image_format == "webp":
        return len(data) < 12 or int.from_bytes(data[4:8], "little") + 8 > len(data)
    if image_format == "tiff":
        directory = int.from_bytes(data[4:8], "little" if data[:2] == b"II" else "big")
        return data[2:4].strip(b"\0") == b"*" and directory + 2 > len(data)
    if image_format in ("png", "jpeg", "jpeg2000"):
        return (b"IEND" if image_format == "png" else b"\xff\xd9") not in data[-_TAIL_BYTES:]
    if image_format in ("avif", "heif"):
        return _boxes_end(data) > len(data)
    return False


def _is_svg(head: bytes) -> bool:
    """Return whether a file starts like an SVG drawing."""
    text = head[:SNIFF_BYTES].lstrip(b"\xef\xbb\xbf \t\r\n")
    if not text.startswith(b"<"):
        return False
    return (
        re.match(rb"(?s)(?:\s*<(?:\?.*?\?|!--.*?--|!DOCTYPE[^>\[]*(?:\[.*?\])?)\s*>)*\s*<(?:\w+:)?svg[\s>]", text)
        is not None
    )


def _sniff_gzip(head: bytes) -> str | None:
    """Return the image format inside a gzip file that is a drawing (.svgz, .emz, .wmz), or None."""
    try:
        inside = zlib.decompressobj(wbits=31).decompress(head, SNIFF_BYTES)
    except zlib.error:
        return None
    if _is_svg(inside):
        return "svg"
    if inside[40:44] == b" EMF":
        return "emf"
    return "wmf" if inside.startswith(b"\xd7\xcd\xc6\x9a") else None


def _sniff_iso(head: bytes) -> str | None:
    """Return the image format of an ISO base media file by its brands, or None (a video)."""
    size = min(int.from_bytes(head[:4], "big"), len(head), 256)
    brands = [head[8:12], *(head[at : at + 4] for at in range(16, size - 3, 4))]
    if brands[0] == b"crx ":
        return "raw"
    if any(brand in (b"avif", b"avis") for brand in brands):
        return "avif"
    heif = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs", b"mif1", b"msf1")
    if brands[0] in heif or any(brand in heif[:8] for brand in brands):
        return "heif"
    return None


def _sniff_weak(head: bytes) -> str | None:
    """Recognise formats whose signature is so short that further header fields must be checked."""
    if head[:2] == b"BM" and (head[6:10] == bytes(4) or int.from_bytes(head[14:18], "little") in _BMP_HEADERS):
        return "bmp"
    if re.match(rb"P[1-6f]\s+(?:#[^\n]*\n\s*)*-?\d", head):
        return "ppm"
    if _is_icon(head):
        return "ico" if head[2] == 1 else "cur"
    if head[:2] == b"\x01\xda" and len(head) >= 12 and head[2] < 2 and head[3] in (1, 2) and head[5] in (1, 2, 3):
        return "sgi"
    if len(head) >= 128 and head[0] == 10 and head[1] in (0, 2, 3, 4, 5) and head[2] < 2 and head[64] == 0:
        return "pcx"
    if head[:4] == b"\x01\x00\x00\x00" and head[40:44] == b" EMF":
        return "emf"
    if re.match(rb"(?:/\*.{0,200}?\*/)?\s*#define[ \t]+\S+_width[ \t]+\d+", head[:512], re.DOTALL):
        return "xbm"
    return "tga" if _is_tga(head) else None


def _is_icon(head: bytes) -> bool:
    """Return whether the reserved byte of the first entry is zero and its image is stored after the directory."""
    return (
        len(head) >= 22
        and head[:4] in (b"\x00\x00\x01\x00", b"\x00\x00\x02\x00")
        and 0 < int.from_bytes(head[4:6], "little") < 256
        and head[9] == 0
        and int.from_bytes(head[18:22], "little") >= 22
    )


def _is_tga(head: bytes) -> bool:
    """Return whether every field of a TGA header is plausible; the format has no signature."""
    if len(head) < 18:
        return False
    _, map_type, kind, map_start, map_length, map_bits, _, _, width, height, bits, descriptor = struct.unpack(
        "<BBBHHBHHHHBB", head[:18]
    )
    if kind not in (1, 2, 3, 9, 10, 11) or not width or not height or descriptor & 0xC0:
        return False
    if kind in (1, 9):
        return bool(map_type == 1 and map_length and map_bits in (8, 15, 16, 24, 32) and bits == 8)
    if map_type or map_start or map_length or map_bits:
        return False
    return bits in ((15, 16, 24, 32) if kind in (2, 10) else (1, 8, 16))


def _boxes_end(data: bytes) -> int:
    """Return the offset at which the last box of an ISO base media file ends according to its size field."""
    at = 0
    while at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        if size == 1:
            size = int.from_bytes(data[at + 8 : at + 16], "big")
        if size < 8:
            return at if size else len(data)
        at += size
    return at
