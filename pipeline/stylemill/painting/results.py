"""Where ``stylemill paint`` puts its results.

``Results`` decides between a file, a folder and standard output before anything is painted. It never replaces a photo,
and gives no name twice.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from stylemill.errors import AccessDenied, ConfigError, ImageError, ObjectNotFound, PathConflict, config_errors_for
from stylemill.images.options import SUFFIXES, EncodeOptions, OutputFormat, output_key
from stylemill.painting.photos import Photo
from stylemill.storage import Storage, join, resolve
from stylemill.storage.uri import name, scheme, shown

STANDARD_OUTPUT = "-"
_CHOSEN_FORMATS: tuple[OutputFormat, ...] = ("jpeg", "png", "webp")
"""Formats that ``--format`` can choose; the others are written only for sources of the same format."""


class Results:
    """Names and stores the results of one command.

    Args:
        storage: where they go.
        out: as the user gave it.
        photos: all photos of the command.
        num_styles: number of styles; with several, each has its own folder.
        options: format and quality.
        may_replace: replace other files in the output folder.

    Raises:
        ConfigError: ``out`` cannot hold these results, or contradicts the format.
    """

    def __init__(
        self,
        storage: Storage,
        out: str | None,
        photos: Sequence[Photo],
        num_styles: int,
        options: EncodeOptions,
        *,
        may_replace: bool,
    ) -> None:
        self._storage = storage
        self._may_replace = may_replace
        self._num_styles = num_styles
        self._photos = {_real(photo.uri) for photo in photos}
        self._taken: dict[str, str] = {}
        self._file: str | None = None
        self._folder: str | None = None
        self.options = options
        """Format and quality; the suffix of a file has chosen the format."""
        self.is_standard_output = out == STANDARD_OUTPUT
        is_one = len(photos) == 1 and photos[0].is_named and num_styles == 1
        if self.is_standard_output:
            _check_standard_output(is_one)
        elif out is not None:
            self._take_location(out, is_one, len(photos) * num_styles)

    def _take_location(self, out: str, is_one: bool, num_pictures: int) -> None:
        with config_errors_for("out"):
            location = resolve(out)
        if scheme(location) in ("http", "https"):
            raise ConfigError("out", shown(location), "cannot be written over http", "give a file or a folder")
        is_folder = out.endswith("/") or (scheme(location) == "file" and Path(location).is_dir())
        suffix = PurePosixPath(name(location)).suffix.lower()
        named_format = next((one for one, suffixes in SUFFIXES.items() if suffix in suffixes), None)
        if is_folder or not suffix:
            self._folder = location
            return
        if not is_one:
            if named_format is not None:
                problem = f"names one file, and there are up to {num_pictures:,} results"
                raise ConfigError("out", out, problem, "give a folder")
            self._folder = location
            return
        if named_format is None:
            cure = "use .jpg, .png or .webp, or end the name of a folder with /"
            raise ConfigError("out", out, f"has the suffix {suffix} of no format that is written", cure)
        wanted = self.options.format
        if wanted not in ("same", named_format):
            cure = f"leave out --format, or name the file {SUFFIXES[wanted][0]}"
            raise ConfigError("out", out, f"is the name of a {named_format.upper()}, not of --format {wanted}", cure)
        self._file = location
        for chosen in _CHOSEN_FORMATS:
            if chosen == named_format:
                self.options = replace(self.options, format=chosen)

    def store(self, photo: Photo, style: str, data: bytes, output_format: str) -> str:
        """Store one result and return its location.

        Raises:
            ImageError: it has the name of a photo, of another result or of a file that must not be replaced, or its
                format does not go with the name.
            StorageError: it cannot be written.
        """
        if self.is_standard_output:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
            return STANDARD_OUTPUT
        uri = self._place(photo, style, output_format)
        self._claim(uri, photo)
        try:
            if self._file or self._may_replace:
                self._storage.write_bytes(uri, data)
            elif not self._storage.create_bytes(uri, data, durable=False) and not self._holds(uri, data):
                cure = "add --replace, or choose another --out"
                raise ImageError("AlreadyExists", f"{uri} exists already and is not replaced; {cure}")
        except (AccessDenied, PathConflict, ObjectNotFound) as error:
            raise ImageError("NotWritten", f"{uri} cannot be written ({error}); choose another --out") from error
        return uri

    def _place(self, photo: Photo, style: str, output_format: str) -> str:
        if self._file:
            if not name(self._file).lower().endswith(SUFFIXES[output_format]):
                problem = f"the result is a {output_format.upper()}, which {name(self._file)} does not say"
                raise ImageError("WrongSuffix", f"{problem}; name it .jpg, .png or .webp")
            return self._file
        if self._folder:
            folder = join(self._folder, style) if self._num_styles > 1 else self._folder
            return join(folder, output_key(photo.key, output_format))
        path = PurePosixPath(photo.key)
        fits = path.suffix.lower() in SUFFIXES[output_format]
        stem, suffix = (path.stem, path.suffix) if fits else (path.stem, SUFFIXES[output_format][0])
        return resolve(str(path.with_name(f"{stem}-{style}{suffix}")))

    def _claim(self, uri: str, photo: Photo) -> None:
        if _real(uri) in self._photos:
            raise ImageError("WouldReplacePhoto", f"the result would replace the photo {uri}; choose another --out")
        if uri in self._taken:
            cure = "paint them into different folders"
            raise ImageError("KeyCollision", f"the result of {self._taken[uri]} has the name {uri} too; {cure}")
        self._taken[uri] = photo.shown

    def _holds(self, uri: str, data: bytes) -> bool:
        try:
            return self._storage.read_bytes(uri) == data
        except ObjectNotFound:  # removed since
            return False


def _check_standard_output(is_one: bool) -> None:
    if not is_one:
        raise ConfigError("out", "-", "takes one picture", "name one photo and one model, or give a folder")
    if sys.stdout.isatty():
        raise ConfigError("out", "-", "would fill the terminal with bytes", "redirect it: > result.jpg")


def _real(uri: str) -> str:
    """Return a location with the symbolic links of a local path resolved."""
    return os.path.realpath(uri) if scheme(uri) == "file" else uri
