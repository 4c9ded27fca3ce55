"""Where ``stylemill paint`` puts its results.

``Results`` decides between a file, a folder and standard output before anything is painted. It never replaces a photo,
and gives no name twice.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from stylemill.errors import AccessDenied, ConfigError, ImageError, ObjectNotFound, PathConflict, config_errors_for
from stylemill.images.options import SUFFIXES, EncodeOptions, OutputFormat, output_key
from stylemill.painting.photos import Photo
from stylemill.storage import Storage, join, resolve
from stylemill.storage.uri import key_problem, name, parent, real_location, scheme, shown

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
        self._photos = {real_location(photo.uri) for photo in photos}
        self._here = resolve(".")
        self._taken: dict[str, str] = {}
        self._file: str | None = None
        self.folder: str | None = None
        """That of ``out``; None if that is no folder."""
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
            self.folder = location
            return
        if not is_one:
            if named_format is not None:
                problem = f"names one file, and there are up to {num_pictures:,} results"
                raise ConfigError("out", out, problem, "give a folder")
            self.folder = location
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

    def reserve_for_sheet(self, uri: str, location: str) -> None:
        """Keep a name for the contact sheet: no result gets it, and it is none that is spoken for.

        Args:
            uri: where the sheet will be.
            location: the same, as the user gave it.

        Raises:
            ConfigError: there is a photo, or ``out`` is the same file.
        """
        real = real_location(uri)
        if real in self._photos:
            raise ConfigError("sheet", location, "is one of the photos, which are never replaced", "give another name")
        if self._file and real == real_location(self._file):
            raise ConfigError("sheet", location, "is the file of --out too", "give another name")
        self._taken[real] = "the contact sheet"

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
        bad_key = key_problem(photo.key)  # of a URL or in a list of locations: no folder holds such names
        if bad_key:
            raise ImageError("BadKey", f"{bad_key}; choose a file for --out")
        if self.folder:
            folder = join(self.folder, style) if self._num_styles > 1 else self.folder
            return join(folder, output_key(photo.key, output_format))
        suffix = PurePosixPath(photo.key).suffix
        fits = suffix.lower() in SUFFIXES[output_format]
        return _beside(self._here, photo.key, style, suffix if fits else SUFFIXES[output_format][0])

    def _claim(self, uri: str, photo: Photo) -> None:
        real = real_location(uri)
        if real in self._photos:
            raise ImageError("WouldReplacePhoto", f"the result would replace the photo {uri}; choose another --out")
        if real in self._taken:
            cure = "paint them into different folders"
            raise ImageError("KeyCollision", f"{self._taken[real]} has the name {uri} too; {cure}")
        self._taken[real] = f"the result of {photo.shown}"

    def _holds(self, uri: str, data: bytes) -> bool:
        try:
            return self._storage.read_bytes(uri) == data
        except ObjectNotFound:  # removed since
            return False


def _check_standard_output(is_one: bool) -> None:
    if not is_one:
        raise ConfigError("out", "-", "takes one picture", "name one photo and one model, or give a folder")
    if sys.stdout is None:  # Python's value for a descriptor that was closed when the process started
        raise ConfigError("out", "-", "means standard output, which is closed", "redirect it: > result.jpg")
    if sys.stdout.isatty():
        raise ConfigError("out", "-", "would fill the terminal with bytes", "redirect it: > result.jpg")


def without_earlier_results(photos: Sequence[Photo], styles: Iterable[str]) -> list[Photo]:
    """Return the photos without those that a run without ``out`` has put among them: it would paint its paintings.

    Args:
        photos: all photos. One that was named itself always stays.
        styles: names of the styles.
    """
    here = resolve(".")
    real_folder = functools.cache(real_location)  # each folder is looked at once, however many photos it holds

    def file(uri: str) -> str:
        return join(real_folder(parent(uri)), name(uri))

    defaults = [suffixes[0] for suffixes in SUFFIXES.values()]
    results = {
        file(_beside(here, photo.key, style, suffix))
        for photo in photos
        if not key_problem(photo.key)
        for style in styles
        for suffix in (PurePosixPath(photo.key).suffix, *defaults)
    }
    return [photo for photo in photos if photo.is_named or file(photo.uri) not in results]


def _beside(here: str, key: str, style: str, suffix: str) -> str:
    """Return where the result of a photo goes without ``out``.

    A key is joined, not resolved like what a user types: a folder may be named ``~root`` or ``img:``.
    """
    path = PurePosixPath(key)
    return join(here, str(path.with_name(f"{path.stem}-{style}{suffix}")))
