"""The contact sheet of ``stylemill paint``: a row for each photo, with the photo and its result in each style."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stylemill.errors import AccessDenied, ConfigError, StorageError, config_errors_for
from stylemill.images.controls import resize
from stylemill.images.options import SUFFIXES
from stylemill.images.short_side import on_white
from stylemill.images.source_image import SourceImage
from stylemill.report.pictures import draw_grid, square
from stylemill.storage import Storage, resolve
from stylemill.storage.uri import scheme, shown
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
        ConfigError: the suffix is of no format of a sheet, there are too many photos, or nothing can be written there.
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
            self.uri = resolve(location)
            """Where it will be."""
        self._storage = storage
        self._check_writable(location)
        self._format = found
        self._num_styles = num_styles
        self._rows: list[list[Image.Image | None]] = []

    def _check_writable(self, location: str) -> None:
        """Refuse what certainly cannot be written now, before minutes of painting."""
        if scheme(self.uri) in ("http", "https"):
            raise ConfigError("sheet", shown(self.uri), "cannot be written over http", "give a file")
        if scheme(self.uri) != "file":
            # Names a bucket that does not exist or an unknown scheme. A bucket may be writable without being readable.
            with writing_output(location, "sheet"), config_errors_for("sheet"), contextlib.suppress(AccessDenied):
                self._storage.exists(self.uri)
            return
        path = Path(self.uri)
        if path.is_dir():
            raise ConfigError("sheet", location, "is a folder", "give the name of a file")
        folder = next(parent for parent in path.parents if parent.exists())
        if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
            problem = f"cannot be written: no file can be created in {folder}"
            raise ConfigError("sheet", location, problem, "give a file in a folder that you may write")

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
            StorageError: it cannot be written.
        """
        sheet = draw_grid(self._rows, _CELL_PX, ["photo", *styles])
        buffer = io.BytesIO()
        sheet.save(buffer, self._format, quality=88)
        try:
            self._storage.write_bytes(self.uri, buffer.getvalue())
        except StorageError as error:
            problem = f"the contact sheet {self.uri} cannot be written ({error})"
            raise StorageError(f"{problem}; the results are complete, choose another --sheet") from error
        return self.uri
