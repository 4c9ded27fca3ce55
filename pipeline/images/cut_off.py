"""Tells a file that ends too early from one that is damaged inside, for those that could not be decoded."""

from __future__ import annotations


def is_cut_off(data: bytes, image_format: str) -> bool:
    """Tell whether a file lacks its end, by what its container says of itself.

    Args:
        data: the whole file as it came.
        image_format: of the file.
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


_TAIL_BYTES = 4096


def _boxes_end(data: bytes) -> int:
    """Return where the last box of an ISO base media file ends by its own account."""
    at = 0
    while at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        if size == 1:
            size = int.from_bytes(data[at + 8 : at + 16], "big")
        if size < 8:
            return at if size else len(data)
        at += size
    return at
