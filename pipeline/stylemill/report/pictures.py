"""Pictures for pages: scaled down and embedded as data URIs, and the contact sheet of a style.

Sources and style images come from anywhere, so all are decoded in a child process without credentials.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from PIL import Image, ImageDraw, ImageFont, ImageOps

from stylemill.images.isolation.client import decode_isolated
from stylemill.images.short_side import on_white

MAX_SIDE_PX = 640
"""Longer side of an embedded picture by default."""
_QUALITY = 82
_GAP_PX = 8
_SHEET_QUALITY = 84


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One picture ready for a page."""

    data_uri: str
    width_px: int
    """Width of the embedded, scaled picture."""
    height_px: int
    """Height of the embedded, scaled picture."""
    alt: str
    """Text alternative: what the picture shows."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One image before and after."""

    name: str
    before: Picture
    after: Picture
    note: str = ""
    """Caption of the pair: size and format."""
    style: str = ""
    """Name of the style of the painting."""
    locations: Mapping[str, str] = field(default_factory=dict)
    """Locations of the whole images by their names: photograph and painting."""

    @property
    def folder(self) -> str:
        """Folder of the image's key; empty at the top."""
        return self.name.rpartition("/")[0]


def embed(data: bytes, *, alt: str, max_side_px: int = MAX_SIDE_PX) -> Picture:
    """Scale an encoded image down and embed it.

    Args:
        data: image in any format that stylemill reads.
        alt: text alternative.
        max_side_px: longer side of the embedded picture; smaller images keep their size.

    Returns:
        The picture as WebP in a data URI.

    Raises:
        ImageError: data cannot be decoded.
    """
    shown = _decoded(data)
    shown.thumbnail((max_side_px, max_side_px), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    shown.save(buffer, format="WEBP", quality=_QUALITY, method=4)
    text = base64.b64encode(buffer.getvalue()).decode("ascii")
    return Picture(data_uri=f"data:image/webp;base64,{text}", width_px=shown.width, height_px=shown.height, alt=alt)


def _decoded(data: bytes) -> Image.Image:
    """Return an image as RGB, upright and in sRGB; transparent parts are white."""
    return on_white(decode_isolated(data))


def palette(data: bytes, num_colours: int = 7) -> tuple[str, ...]:
    """Return the main colours of an encoded image as ``#rrggbb``, dark to light.

    Raises:
        ImageError: data cannot be decoded.
    """
    small = _decoded(data)
    small.thumbnail((96, 96))
    reduced = small.quantize(colors=num_colours, method=Image.Quantize.MAXCOVERAGE, kmeans=3)
    values = reduced.getpalette() or []
    used = [index for _, index in reduced.getcolors() or [] if isinstance(index, int)]
    colours = sorted((tuple(values[3 * index : 3 * index + 3]) for index in used), key=_luma)
    return tuple("#{:02x}{:02x}{:02x}".format(*colour) for colour in colours)


def _luma(colour: tuple[int, ...]) -> float:
    red, green, blue = colour
    return 0.299 * red + 0.587 * green + 0.114 * blue


def styles_sheet(
    photos: Sequence[bytes], rows: Sequence[tuple[bytes, Sequence[bytes]]], *, cell_px: int = 232
) -> bytes:
    """Draw a contact sheet of photographs in several styles, each picture cropped to its central square.

    Args:
        photos: encoded photographs; at least one.
        rows: for each style its encoded style image, and its paintings of the photographs in the same order.
        cell_px: side of one picture on the sheet in pixels.

    Returns:
        A JPEG: the photographs in the first row, below them a row for each style with its style image on the left.

    Raises:
        ImageError: one of them cannot be decoded.
        ValueError: there are no photographs, or a row has another number of paintings.
    """
    if not photos or any(len(paintings) != len(photos) for _, paintings in rows):
        raise ValueError("a contact sheet needs photographs, and one painting of each in every row")
    cells: list[list[bytes | None]] = [[None, *photos]]
    cells += [[style, *paintings] for style, paintings in rows]
    sheet = draw_grid(
        [[None if data is None else square(_decoded(data), cell_px) for data in pictures] for pictures in cells],
        cell_px,
    )
    buffer = io.BytesIO()
    sheet.save(buffer, format="JPEG", quality=_SHEET_QUALITY, optimize=True, progressive=True)
    return buffer.getvalue()


def square(picture: Image.Image, side_px: int) -> Image.Image:
    """Return the central square of a picture, scaled."""
    return ImageOps.fit(picture, (side_px, side_px), Image.Resampling.LANCZOS)


def draw_grid(
    rows: Sequence[Sequence[Image.Image | None]], cell_px: int, titles: Sequence[str] = (), title_px: int = 28
) -> Image.Image:
    """Draw squares of one size in rows on white, with a title above each column.

    Args:
        rows: each with the same number of squares; None leaves a cell empty.
        cell_px: side of one square in pixels.
        titles: of the columns; none leave out their line. What the built-in font lacks is drawn as a box.
        title_px: height of the line of titles in pixels.
    """
    step, top_px = cell_px + _GAP_PX, title_px if titles else 0
    sheet = Image.new("RGB", (step * len(rows[0]) - _GAP_PX, top_px + step * len(rows) - _GAP_PX), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=0.6 * title_px)
    for left, title in enumerate(titles):
        pen.text((left * step + cell_px / 2, top_px / 2), title, fill="black", anchor="mm", font=font)
    for top, pictures in enumerate(rows):
        for left, picture in enumerate(pictures):
            if picture is not None:
                sheet.paste(picture, (left * step, top_px + top * step))
    return sheet
