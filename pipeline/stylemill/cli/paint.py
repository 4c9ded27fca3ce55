"""``stylemill paint``: paint photos in this process, without Ray; the results have the bytes of a bulk run."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
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
    from stylemill.style_model import StyleModel

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
    from stylemill.painting.photos import find_photos
    from stylemill.painting.results import STANDARD_OUTPUT, Results
    from stylemill.storage import Storage
    from stylemill.storage.options import preflight_options
    from stylemill.storage.uri import scheme

    uris: list[str] = []
    storage = Storage(preflight_options(config.storage), web_witnesses=lambda: uris)
    photos = find_photos(storage, config.photo)
    uris += [photo.uri for photo in photos if scheme(photo.uri) in ("http", "https")]
    num_styles = len(config.model)
    if config.out == STANDARD_OUTPUT and current().options.form != "text":
        raise ConfigError("out", config.out, "and JSON both need standard output", "give a file, or leave --json out")
    results = Results(storage, config.out, photos, num_styles, config.encode, may_replace=config.replace)
    sheet = _open_sheet(config, storage, len(photos))
    with ExitStack() as stack:
        # Its process starts, and the first photos are decoded, while this one loads torch.
        decoder = stack.enter_context(IsolatedDecoder(config.decode))
        sources = _read_ahead(photos, storage, decoder, stack)
        first = next(sources)
        command = _Command(_load_painters(config, storage), results, sheet)
        command.paint(*first)
        for photo, decoded in sources:
            command.paint(photo, decoded)
        return command.finish()


def _load_painters(config: PaintConfig, storage: Storage) -> dict[str, ImagePainter]:
    """Return a painter for each style by its name."""
    from stylemill.registry import load_models

    models = load_models(storage, config.model, config.registry)

    import torch

    from stylemill.machines import this_machine
    from stylemill.nn.fast_net import FastNet
    from stylemill.painting.painter import ImagePainter

    # Torch starts a thread for each processor of the machine, also in a container that may use few of them.
    threads = min(torch.get_num_threads(), int(this_machine()["CPU"]))
    precision, device = config.paint.precision, config.paint.device

    def painter(model: StyleModel) -> ImagePainter:
        net = FastNet(model.build_network(), precision=precision, device=device, num_threads=threads)
        return ImagePainter(net, config.paint)

    return {model.name: painter(model) for model in models}


def _open_sheet(config: PaintConfig, storage: Storage, num_photos: int) -> ContactSheet | None:
    if config.sheet is None:
        return None
    from stylemill.cli.contact_sheet import ContactSheet

    return ContactSheet(storage, config.sheet, num_photos, len(config.model))


Decoded = tuple["Photo", "Future[SourceImage]"]
"""A photo, and its pixels when they are decoded."""


def _read_ahead(
    photos: Sequence[Photo], storage: Storage, decoder: IsolatedDecoder, stack: ExitStack
) -> Iterator[Decoded]:
    """Yield the photos in order; the next ones are fetched and decoded meanwhile."""
    pool = ThreadPoolExecutor(1, thread_name_prefix="fetch")
    stack.callback(pool.shutdown, cancel_futures=True)

    def fetch(photo: Photo) -> bytes:
        return photo.fetch(storage, decoder.options.max_source_bytes)

    def read(photo: Photo) -> SourceImage:
        return decoder.decode(fetch(photo))

    waiting: list[Decoded] = []
    for photo in photos:
        # Standard input is read in this thread, which Ctrl-C can interrupt.
        decoded = pool.submit(read, photo) if photo.found else decoder.submit(fetch(photo))
        waiting.append((photo, decoded))
        if len(waiting) > _READ_AHEAD:
            yield waiting.pop(0)
    yield from waiting


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
