"""The contact sheet of ``stylemill paint``: a row for each photo, with the photo and its result in each style."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stylemill.errors import ConfigError, config_errors_for
from stylemill.images.controls import resize
from stylemill.images.options import SUFFIXES
from stylemill.images.short_side import on_white
from stylemill.images.source_image import SourceImage
from stylemill.report.pictures import draw_grid, square
from stylemill.storage import Storage, resolve
from stylemill.storage.user_errors import writing_output

_FORMATS = ("jpeg", "png", "webp")
_CELL_PX = 320
_MAX_PHOTOS = 100
"""A sheet of more rows is neither read nor opened by every viewer."""


class ContactSheet:
    """Collects small pictures and writes them as one.

    Args:
        storage: where the sheet goes.
        location: of the sheet, as the user gave it.
        num_photos: rows.
        num_styles: columns, after that of the photos.

    Raises:
        ConfigError: the suffix is of no format of a sheet, or there are too many photos.
    """

    def __init__(self, storage: Storage, location: str, num_photos: int, num_styles: int) -> None:
        suffix = PurePosixPath(location).suffix.lower()
        found = next((one for one in _FORMATS if suffix in SUFFIXES[one]), None)
        if found is None:
            raise ConfigError("sheet", location, "is not the name of a picture", "use .jpg, .png or .webp")
        if num_photos > _MAX_PHOTOS:
            problem = f"would have {num_photos:,} rows"
            raise ConfigError("sheet", location, problem, f"name at most {_MAX_PHOTOS} photos")
        with config_errors_for("sheet"):
            self._uri = resolve(location)
        self._storage = storage
        self._format = found
        self._num_styles = num_styles
        self._rows: list[list[Image.Image | None]] = []

    def add_photo(self, source: SourceImage) -> int:
        """Add a photo and return the number of its row."""
        self._rows.append([square(on_white(source), _CELL_PX), *[None] * self._num_styles])
        return len(self._rows) - 1

    def add_result(self, row: int, column: int, source: SourceImage, painted_HWC: NDArray[np.uint8]) -> None:
        """Add the result of a photo in the style of a column: (H, W, 3) uint8, shown with the alpha of its source."""
        height_px, width_px = painted_HWC.shape[:2]
        alpha_HW = None if source.alpha_HW is None else resize(source.alpha_HW, width_px, height_px)
        picture = on_white(replace(source, image_HWC=painted_HWC, alpha_HW=alpha_HW))
        self._rows[row][1 + column] = square(picture, _CELL_PX)

    def write(self, styles: Sequence[str]) -> str:
        """Write the sheet, with the names of the styles above its columns, and return its location.

        Raises:
            ConfigError: it cannot be written.
        """
        sheet = draw_grid(self._rows, _CELL_PX, ["photo", *styles])
        buffer = io.BytesIO()
        sheet.save(buffer, self._format, quality=88)
        with writing_output(self._uri, "sheet"):
            self._storage.write_bytes(self._uri, buffer.getvalue())
        return self._uri
