"""One picture that tells it all: the style, photographs above, their paintings below."""

from __future__ import annotations

import io
from collections.abc import Sequence

from PIL import Image, ImageOps

from pipeline.report.pictures import flatten

_GAP_PX = 8
_SHEET_QUALITY = 84


def before_after_sheet(style: bytes, pairs: Sequence[tuple[bytes, bytes]], *, cell_px: int = 232) -> bytes:
    """Lay out a style and some pairs, each cut to a square around its middle.

    Args:
        style: encoded style image.
        pairs: (original, painting), both encoded; at least one.
        cell_px: side of one photograph on the sheet in pixels.

    Returns:
        A JPEG: the style as high as two rows on the left, then a column for each pair.

    Raises:
        OSError: one of them is not an image that Pillow can read.
        ValueError: there are no pairs.
    """
    if not pairs:
        raise ValueError("a sheet needs at least one pair")
    high = 2 * cell_px + _GAP_PX
    sheet = Image.new("RGB", (high + len(pairs) * (cell_px + _GAP_PX), high), "white")
    sheet.paste(_square(style, high), (0, 0))
    for column, (before, after) in enumerate(pairs):
        left = high + _GAP_PX + column * (cell_px + _GAP_PX)
        sheet.paste(_square(before, cell_px), (left, 0))
        sheet.paste(_square(after, cell_px), (left, cell_px + _GAP_PX))
    buffer = io.BytesIO()
    sheet.save(buffer, format="JPEG", quality=_SHEET_QUALITY, optimize=True, progressive=True)
    return buffer.getvalue()


def _square(data: bytes, side_px: int) -> Image.Image:
    with Image.open(io.BytesIO(data)) as image:
        shown = flatten(ImageOps.exif_transpose(image))
    return ImageOps.fit(shown, (side_px, side_px), Image.Resampling.LANCZOS)
