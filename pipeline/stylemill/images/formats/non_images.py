"""Recognise files that are not images, so that their manifest rows give the reason why they were skipped.

``sniff`` has found no image format when these functions are called. Binary files are recognised by their signatures,
text files by how the text begins.
"""

from __future__ import annotations

import re
from typing import Final

from stylemill.errors import NotAnImage
from stylemill.images.formats.sniff import SNIFF_BYTES

# Offset, bytes found there, error type, description.
_SIGNATURES: Final[tuple[tuple[int, bytes, str, str], ...]] = (
    (0, b"%PDF-", "Pdf", "a PDF document"),
    (0, b"PK\x03\x04", "Archive", "a ZIP archive or an office document"),
    (0, b"PK\x05\x06", "Archive", "an empty ZIP archive"),
    (0, b"\x1f\x8b", "Archive", "gzip-compressed data"),
    (0, b"BZh", "Archive", "bzip2-compressed data"),
    (0, b"\xfd7zXZ\x00", "Archive", "xz-compressed data"),
    (0, b"\x28\xb5\x2f\xfd", "Archive", "zstd-compressed data"),
    (0, b"\x04\x22\x4d\x18", "Archive", "lz4-compressed data"),
    (0, b"7z\xbc\xaf\x27\x1c", "Archive", "a 7-Zip archive"),
    (0, b"Rar!\x1a\x07", "Archive", "a RAR archive"),
    (0, b"!<arch>\n", "Archive", "a Unix archive or package"),
    (257, b"ustar", "Archive", "a tar archive"),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "Document", "an old Microsoft document or a thumbnail store"),
    (0, b"{\\rtf", "Document", "an RTF document"),
    (4, b"ftyp", "Video", "a video or sound file (ISO base media)"),
    (4, b"moov", "Video", "a QuickTime video"),
    (4, b"mdat", "Video", "a QuickTime video"),
    (0, b"\x1aE\xdf\xa3", "Video", "a Matroska or WebM video"),
    (8, b"AVI ", "Video", "an AVI video"),
    (0, b"\x00\x00\x01\xba", "Video", "an MPEG video"),
    (0, b"\x00\x00\x01\xb3", "Video", "an MPEG video"),
    (0, b"FLV\x01", "Video", "a Flash video"),
    (4, b"\x11\xaf", "Video", "an FLI animation"),
    (4, b"\x12\xaf", "Video", "an FLC animation"),
    (0, b"0&\xb2u\x8ef\xcf\x11", "Video", "a Windows Media file"),
    (0, b"OggS", "Audio", "an Ogg sound or video file"),
    (8, b"WAVE", "Audio", "a WAVE sound file"),
    (0, b"ID3", "Audio", "an MP3 sound file"),
    (0, b"fLaC", "Audio", "a FLAC sound file"),
    (0, b"MThd", "Audio", "a MIDI file"),
    (0, b"\x7fELF", "Program", "a program or library (ELF)"),
    (0, b"MZ", "Program", "a Windows program"),
    (0, b"\xcf\xfa\xed\xfe", "Program", "a macOS program"),
    (0, b"\xca\xfe\xba\xbe", "Program", "a program (Java class or macOS)"),
    (0, b"\x00asm", "Program", "a WebAssembly module"),
    (0, b"CWS", "Program", "a Flash film"),
    (0, b"FWS", "Program", "a Flash film"),
    (0, b"SQLite format 3\x00", "Database", "an SQLite database"),
    (0, b"PAR1", "Database", "a Parquet table"),
    (0, b"\x93NUMPY", "Database", "a NumPy array"),
    (0, b"\x89HDF\r\n\x1a\n", "Database", "an HDF5 file"),
    (0, b"\x00\x00\x00\x01Bud1", "Sidecar", "a macOS folder description (.DS_Store)"),
    (0, b"\x00\x05\x16\x07", "Sidecar", "a macOS resource fork (AppleDouble)"),
    (0, b"wOFF", "Font", "a font"),
    (0, b"wOF2", "Font", "a font"),
    (0, b"OTTO", "Font", "a font"),
    (0, b"\x00\x01\x00\x00\x00", "Font", "a font"),
    (36, b"acsp", "Profile", "an ICC colour profile"),
)

_HTML: Final = re.compile(
    r"(?:<\?xml.*?\?>\s*)?(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html|head|body|script|title|meta|h1|p|div)\b",
    re.IGNORECASE | re.DOTALL,
)


def describe_non_image(data: bytes) -> NotAnImage:
    """Return the reason why a file that is not an image is skipped.

    Args:
        data: the file, or its first ``SNIFF_BYTES``; not empty; ``sniff`` returns None for it.

    Returns:
        The error for the caller to raise; its type is ``Html``, ``Text``, ``Archive``, ``UnknownContent`` ...
    """
    head = data[:SNIFF_BYTES]
    for offset, magic, error_type, what in _SIGNATURES:
        if head[offset : offset + len(magic)] == magic:
            return NotAnImage(error_type, f"by its content it is {what}")
    if not head.strip(b"\x00"):
        return NotAnImage("UnknownContent", f"its first {len(head)} bytes are all zero, which begins no image format")
    return _describe_text(head) or NotAnImage(
        "UnknownContent",
        f"it begins with the bytes {head[:8].hex(' ')}, which belong to no known image format",
    )


def _describe_text(head: bytes) -> NotAnImage | None:
    text = _as_text(head)
    if text is None:
        return None
    start = text.lstrip("\ufeff \t\r\n")
    if _HTML.match(start):
        return NotAnImage("Html", "by its content it is an HTML page, often what a server sends in place of an image")
    if re.search(r"(?i)<x:xmpmeta|<rdf:RDF|<\?xpacket", start[:1000]):
        return NotAnImage("Sidecar", "by its content it is an XMP sidecar")
    if re.match(r"<(?:\?xml|!--|!doctype|[A-Za-z_][\w.:-]*[\s/>])", start, re.IGNORECASE):
        return NotAnImage("Xml", "by its content it is an XML document")
    if re.match(r'[\[{]\s*(?:["\[\]{}]|-?\d|true|false|null)', start):
        return NotAnImage("Json", "by its content it is JSON")
    if start.startswith("version https://git-lfs"):
        return NotAnImage("Text", "it is a Git LFS pointer; the image itself was not fetched")
    return NotAnImage("Text", "by its content it is text")


def _as_text(head: bytes) -> str | None:
    """Decode as UTF-8, as UTF-16 with a byte order mark, or as Latin-1 without control characters."""
    encoding = "utf-16" if head[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8"
    body = head[:-1] if encoding == "utf-16" and len(head) % 2 else head
    text = body.decode(encoding, errors="ignore" if len(head) == SNIFF_BYTES else "replace")
    if "\ufffd" in text:
        text = head.decode("latin-1")
        num_ascii = sum(32 <= byte < 127 for byte in head)
        if re.search(r"[\x7f-\x9f]", text) or num_ascii < 0.7 * len(head):
            return None
    if re.search(r"[\x00-\x08\x0e-\x1a\x1c-\x1f]", text):
        return None
    return text
