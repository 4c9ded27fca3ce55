"""Which key a result gets."""

from __future__ import annotations

from typing import Final

SUFFIXES: Final[dict[str, tuple[str, ...]]] = {
    "jpeg": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "png": (".png", ".apng"),
    "webp": (".webp",),
    "tiff": (".tif", ".tiff"),
    "gif": (".gif",),
    "avif": (".avif", ".avifs"),
    "heif": (".heic", ".heif", ".hif"),
    "jpeg2000": (".jp2", ".j2k", ".jpf", ".jpx", ".j2c", ".jpc"),
    "bmp": (".bmp", ".dib"),
    "ppm": (".ppm", ".pnm"),
    "tga": (".tga",),
}
"""Names that say the format of a result, the usual one first."""


def output_key(key: str, output_format: str) -> str:
    """Return the key of a result: the source's own if it already names the format, else with a suffix added.

    ``a.JPG`` stays ``a.JPG`` as a JPEG; ``a.tif`` becomes ``a.tif.png`` as a PNG.

    Args:
        key: the source's key, POSIX.
        output_format: a name among ``SUFFIXES``.
    """
    suffixes = SUFFIXES[output_format]
    name = key.rpartition("/")[2].lower()
    if any(name.endswith(suffix) and len(name) > len(suffix) for suffix in suffixes):
        return key
    return key + suffixes[0]
