"""``stylemill paint``: paint photos in this process, without Ray; the results have the bytes of a bulk run."""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, TextIO

from stylemill.cli.arguments import parse
from stylemill.cli.output import current
from stylemill.cli.output import result as add_result
from stylemill.errors import ConfigError, ImageError, NotAnImage
from stylemill.painting.config import PaintConfig

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from stylemill.cli.contact_sheet import ContactSheet
    from stylemill.images.isolation.client import IsolatedDecoder
    from stylemill.images.source_image import SourceImage
    from stylemill.painting.painter import ImagePainter
    from stylemill.painting.photos import Photo
    from stylemill.painting.results import Results
    from stylemill.storage import Storage

_READ_AHEAD = 1
"""Photos that are fetched and decoded while one is painted."""


def main(arguments: Sequence[str]) -> int:
    """Run the verb; return 0 if all photos were painted, 1 if one failed."""
    description = "Paint photos in this process: the same bytes as a bulk run (stylize) with the same settings."
    config = parse(PaintConfig, "paint", description, arguments, positional="photo")
    return 0 if config is None else run(config)


def run(config: PaintConfig) -> int:
    """Paint the photos, print a line for each and return the exit code.

    Raises:
        ConfigError: a model, a photo or the output does not exist or cannot be used.
        StorageError: storage failed beyond its retries.
        ClusterError: this machine cannot start a decoder.
    """
    from stylemill.images.isolation.client import IsolatedDecoder
    from stylemill.painting.photos import check_outside, find_photos
    from stylemill.painting.results import STANDARD_OUTPUT, Results
    from stylemill.storage import Storage
    from stylemill.storage.options import preflight_options
    from stylemill.storage.uri import scheme
    from stylemill.style_choice import choose_styles

    uris: list[str] = []
    storage = Storage(preflight_options(config.storage), web_witnesses=lambda: uris)
    photos = find_photos(storage, config.photo)
    styles = choose_styles(storage, config.model, config.registry, config.style)
    if config.out is None and not all(photo.is_named for photo in photos):
        photos = _leave_out_results(photos, [style.name for style in styles])
    uris += [photo.uri for photo in photos if scheme(photo.uri) in ("http", "https")]
    if config.out == STANDARD_OUTPUT and current().options.form != "text":
        raise ConfigError("out", config.out, "and JSON both need standard output", "give a file, or leave --json out")
    results = Results(storage, config.out, photos, len(styles), config.encode, may_replace=config.replace)
    if config.out is not None and results.folder is not None:
        check_outside(storage, config.photo, "out", config.out, results.folder)
    sheet = _open_sheet(config, storage, results, len(photos), len(styles))
    # Its process starts, and the first photos are decoded, while this one loads torch.
    with IsolatedDecoder(config.decode) as decoder:
        sources = _read_ahead(photos, storage, decoder)
        first = next(sources)
        painters = {style.name: style.load().painter(config.paint) for style in styles}
        command = _Command(painters, results, sheet)
        command.paint(*first)
        for photo, decoded in sources:
            command.paint(photo, decoded)
        return command.finish()


def _leave_out_results(photos: list[Photo], styles: Sequence[str]) -> list[Photo]:
    from stylemill.painting.results import without_earlier_results

    kept = without_earlier_results(photos, styles)
    num_results = len(photos) - len(kept)
    if num_results:
        are = "file is a result" if num_results == 1 else "files are results"
        print(f"stylemill: {num_results:,} {are} of earlier runs and not painted", file=sys.stderr, flush=True)
    return kept


def _open_sheet(
    config: PaintConfig, storage: Storage, results: Results, num_photos: int, num_styles: int
) -> ContactSheet | None:
    if config.sheet is None:
        return None
    from stylemill.cli.contact_sheet import ContactSheet
    from stylemill.painting.photos import check_outside
    from stylemill.storage.uri import parent

    sheet = ContactSheet(storage, config.sheet, num_photos, num_styles)
    results.reserve_for_sheet(sheet.uri, config.sheet)
    check_outside(storage, config.photo, "sheet", config.sheet, parent(sheet.uri))
    return sheet


Decoded = tuple["Photo", "Future[SourceImage]"]
"""A photo, and its pixels when they are decoded."""


class _Reader:
    """Makes calls one after another in a thread that does not keep an interrupted process from ending.

    The threads of an executor would: Python waits for them when it exits, and a slow host may take minutes.
    """

    def __init__(self) -> None:
        self._calls: SimpleQueue[tuple[Future[SourceImage], Callable[[], SourceImage]] | None] = SimpleQueue()
        Thread(target=self._make_calls, name="fetch", daemon=True).start()

    def submit(self, call: Callable[[], SourceImage]) -> Future[SourceImage]:
        future: Future[SourceImage] = Future()
        self._calls.put((future, call))
        return future

    def close(self) -> None:
        """End the thread after the calls that were submitted, without waiting for it."""
        self._calls.put(None)

    def _make_calls(self) -> None:
        while submitted := self._calls.get():
            future, call = submitted
            try:
                future.set_result(call())
            except BaseException as error:  # noqa: BLE001 (it is raised where the result is asked for)
                future.set_exception(error)
            del submitted, future, call  # or an image would be kept until the next one is wanted


def _read_ahead(photos: Sequence[Photo], storage: Storage, decoder: IsolatedDecoder) -> Iterator[Decoded]:
    """Yield the photos in order; the next ones are fetched and decoded meanwhile."""
    reader = _Reader()

    def fetch(photo: Photo) -> bytes:
        return photo.fetch(storage, decoder.options.max_source_bytes)

    def read(photo: Photo) -> SourceImage:
        return decoder.decode(fetch(photo))

    waiting: list[Decoded] = []
    try:
        for photo in photos:
            # Standard input is read in this thread, which Ctrl-C can interrupt.
            is_stdin = photo.found is None
            decoded = decoder.submit(fetch(photo)) if is_stdin else reader.submit(functools.partial(read, photo))
            waiting.append((photo, decoded))
            if len(waiting) > _READ_AHEAD:
                yield waiting.pop(0)
        yield from waiting
    finally:
        reader.close()


@dataclass
class _Counts:
    painted: int = 0
    failed: int = 0
    skipped: int = 0


class _Command:
    """Paints, stores and reports photos one by one."""

    def __init__(self, painters: Mapping[str, ImagePainter], results: Results, sheet: ContactSheet | None) -> None:
        self._painters = painters
        self._results = results
        self._sheet = sheet
        self._counts = _Counts()
        self._pictures: list[str] = []
        self._failures: list[dict[str, str]] = []
        self._messages: TextIO = sys.stderr if results.is_standard_output else sys.stdout

    def paint(self, photo: Photo, decoded: Future[SourceImage]) -> None:
        """Paint one photo in every style; a photo that fails is a line on stderr."""
        try:
            source = decoded.result()
        except ImageError as failure:
            self._tell_failure(photo, failure)
            return
        row = self._sheet.add_photo(source) if self._sheet else None
        for column, (style, painter) in enumerate(self._painters.items()):
            try:
                painted_HWC = self._paint(photo, source, style, painter)
            except ImageError as failure:
                self._tell_failure(photo, failure)
                continue
            if self._sheet and row is not None:
                self._sheet.add_result(row, column, source, painted_HWC)

    def _paint(self, photo: Photo, source: SourceImage, style: str, painter: ImagePainter) -> NDArray[np.uint8]:
        from stylemill.images.encode import encode_painted
        from stylemill.painting.painter import frames_of
        from stylemill.painting.photos import printable

        start_s = time.perf_counter()
        frames_HWC, _ = painter.paint(frames_of(source))
        encoded = encode_painted(frames_HWC, source, self._results.options)
        uri = self._results.store(photo, style, encoded.data, encoded.format)
        self._counts.painted += 1
        self._pictures.append(uri)
        notes = "".join(f"; {note}" for note in dict.fromkeys((*source.notes, *encoded.notes)))
        size = f"{encoded.width_px} x {encoded.height_px} px"
        seconds = time.perf_counter() - start_s
        print(f"{photo.shown} -> {printable(uri)} ({size}, {seconds:.1f} s{notes})", file=self._messages, flush=True)
        return frames_HWC[0]

    def _tell_failure(self, photo: Photo, failure: ImageError) -> None:
        is_skipped = isinstance(failure, NotAnImage) and not photo.is_named
        self._counts.failed += not is_skipped
        self._counts.skipped += is_skipped
        self._failures.append({"photo": photo.shown, "error_type": failure.error_type, "error": failure.message})
        what = "skipped" if is_skipped else "not painted"
        print(f"stylemill: {photo.shown}: {what}: {' '.join(failure.message.split())}", file=sys.stderr, flush=True)

    def finish(self) -> int:
        """Write the contact sheet and return the exit code."""
        add_result(counts=vars(self._counts), paths={"pictures": self._pictures}, failures=self._failures)
        if self._sheet and self._counts.painted:
            sheet = self._sheet.write(list(self._painters))
            add_result(paths={"sheet": sheet})
            print(f"sheet -> {sheet}", file=self._messages)
        if not self._counts.painted and not self._counts.failed:
            raise ConfigError("photo", None, "names no image", "name a photo, or a folder that holds some")
        return 1 if self._counts.failed else 0
