"""Damage that the decoders of Pillow conceal: what is checked for each format, before and after an image is decoded.

| format | before | after |
| --- | --- | --- |
| JPEG | structure, holes; decoded by libjpeg-turbo with its warnings (``formats.jpeg``) | shifted colours |
| PNG | checksums (``formats.png_checksums.checked``) | number of rows |
| WebP | | holes |
| AVIF, HEIF, JPEG 2000 | holes | |
| TIFF | holes in compressed strips and tiles; JPEG strips as JPEG files | |
"""

from __future__ import annotations

from typing import Any, Final

from PIL import Image, ImageFile

from stylemill.images.formats import jpeg
from stylemill.images.formats.png_checksums import check_rows
from stylemill.images.formats.zero_runs import check_smooth_areas, check_zeros, tiff_blocks

_COMPRESSION: Final = 259
_JPEG_TABLES: Final = 347
_NEW_JPEG: Final = 7
_MODES: Final = {1: "L", 3: "L", 4: "CMYK"}
"""How the JPEG strips of a TIFF are decoded for the check, by the number of their components."""


def check_stored(data: bytes, image: ImageFile.ImageFile, image_format: str) -> None:
    """Refuse an opened file whose compressed data is damaged; no pixel is decoded, but those of JPEG strips.

    Args:
        data: the whole file.
        image: opened by its plugin.
        image_format: its format, from ``sniff``.

    Raises:
        ImageError: ``Corrupt`` or ``Truncated``.
    """
    tags: Any = getattr(image, "tag_v2", {}) if image_format == "tiff" else {}
    check_zeros(data, image_format, tags)
    if tags.get(_COMPRESSION) == _NEW_JPEG:
        _check_jpeg_strips(data, tags)


def check_decoded(data: bytes, image: Image.Image, image_format: str) -> None:
    """Refuse an image whose pixels show that its compressed data is damaged.

    Args:
        data: the whole file.
        image: loaded by Pillow.
        image_format: its format, from ``sniff``.

    Raises:
        ImageError: ``Corrupt`` or ``Truncated``.
    """
    if image_format == "png":
        check_rows(data, image)
    elif image_format == "webp":
        check_smooth_areas(data, image)


def _check_jpeg_strips(data: bytes, tags: Any) -> None:
    """Decode the strips or tiles of a TIFF as JPEG files, at an eighth of their size."""
    tables = tags.get(_JPEG_TABLES, b"")
    for start, end in sorted(set(tiff_blocks(tags))):
        strip = data[start:end]
        if not strip.startswith(b"\xff\xd8"):
            continue  # the decoder says what is wrong with it
        strip = b"\xff\xd8" + tables[2:-2] + strip[2:]
        found = jpeg.read_structure(strip)
        mode = _MODES.get(len(found.sampling))
        if mode:
            width_px, height_px = (-(-side // 8) for side in found.size_px)
            jpeg.read_pixels(strip, mode, (width_px, height_px))
