"""What a bulk run would do, for ``stylize --dry-run``: nothing is written and Ray is not started.

``survey`` lists the sources that the run would paint, decodes a random sample of them, paints some of that, and returns
counts and measurements of this machine. The listing is exact; sizes, kinds and times follow from the sample.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from stylemill.errors import NotAnImage
from stylemill.images.encode import encode
from stylemill.images.source_image import Metadata, SourceImage
from stylemill.manifest.commit import iter_shards, read_plan_summary, read_shard, unfinished_sources
from stylemill.storage import Storage
from stylemill.storage.options import preflight_options
from stylemill.storage.sources import find_sources
from stylemill.storage.uri import name as last_component
from stylemill.style_model import StyleModel
from stylemill.stylizing.incremental import changed_sources, failed_sources
from stylemill.stylizing.plan import Source, TwinFinder, plan_row
from stylemill.stylizing.preflight import PreparedRun
from stylemill.stylizing.read import Reader

SAMPLE_SIZE = 24
"""Sources that are decoded at most."""
SAMPLE_S = 10.0
"""Seconds after which no further one is decoded."""
NUM_PAINTED = 2
"""Images of the sample that are painted in each style, at most ``TRIAL_SIDE_PX`` square."""
REPORT_EVERY = 10_000
"""Sources between two calls of ``on_count``."""


@dataclass(kw_only=True)
class Survey:
    """What a run would paint, and what the sample shows."""

    num_sources: int = 0
    """Sources to paint."""
    num_bytes: int = 0
    suffixes: Counter[str] = field(default_factory=Counter)
    """Sources to paint by the suffix of their names, in lower case."""
    num_done: int = 0
    """Sources of this run that are painted already, or that committed runs cover (``--incremental``)."""
    num_sampled: int = 0
    num_images: int = 0
    """Images in the sample."""
    num_failed: int = 0
    """Damaged images in the sample."""
    reasons: Counter[str] = field(default_factory=Counter)
    """Why sources of the sample would fail or be skipped."""
    megapixels: float = 0.0
    """Mean of the images of the sample, as they would be painted; an animation counts all its frames."""
    decode_s: float = 0.0
    """Mean time to decode an image of the sample."""
    paint_s_per_megapixel: float = 0.0
    """Sum over the styles, on this machine."""
    encode_s_per_megapixel: float = 0.0
    """Sum over the styles."""
    bytes_per_megapixel: float = 0.0
    """Of the encoded results, sum over the styles."""
    precision: str = ""
    """Arithmetic with which the network was measured."""

    @property
    def image_fraction(self) -> float:
        """Fraction of the sample that are images."""
        return self.num_images / self.num_sampled if self.num_sampled else 0.0

    @property
    def seconds_per_image(self) -> float:
        """Time that one worker needs for an image, in all styles."""
        return self.decode_s + self.megapixels * (self.paint_s_per_megapixel + self.encode_s_per_megapixel)


def survey(
    run: PreparedRun,
    models: list[StyleModel],
    num_threads: int,
    on_count: Callable[[int], None] = lambda count: None,
) -> Survey:
    """Return what a run would paint.

    Args:
        run: checked, but not opened (``preflight.check``).
        models: of the run.
        num_threads: threads of a worker, with which the network is measured.
        on_count: called now and then with the number of sources so far.

    Raises:
        StorageError: a listing, a plan or a manifest cannot be read.
    """
    storage = Storage(preflight_options(run.config.storage))
    sample: list[dict[str, Any]] = []
    found, choose = Survey(), random.Random(0)
    for row in _rows_to_paint(storage, run, found):
        found.num_sources += 1
        found.num_bytes += row["size_bytes"]
        stem, dot, suffix = last_component(row["key"]).rpartition(".")
        found.suffixes[f".{suffix.lower()}" if stem and dot else "none"] += 1
        if len(sample) < SAMPLE_SIZE:
            sample.append(row)
        elif (place := choose.randrange(found.num_sources)) < SAMPLE_SIZE:  # every source has the same chance
            sample[place] = row
        if found.num_sources % REPORT_EVERY == 0:
            on_count(found.num_sources)
    choose.shuffle(sample)  # the time may end before the sample does
    images = _decode(storage, run, sample, found)
    _paint(run, models, images, found, num_threads)
    return found


def _rows_to_paint(storage: Storage, run: PreparedRun, found: Survey) -> Iterator[dict[str, Any]]:
    """Yield what is left to paint as rows of PLAN_SCHEMA, and count in ``found`` what is done."""
    after = ""
    for shard in iter_shards(storage, run.layout):
        plan = read_shard(storage, run.layout, shard)
        is_published = storage.exists(run.layout.part_uri(shard))
        left = [] if is_published else unfinished_sources(storage, run.layout, shard).to_pylist()
        found.num_done += plan.num_rows - len(left)
        after = plan.column("key")[-1].as_py()
        yield from left
    if read_plan_summary(storage, run.layout) is None:
        yield from (plan_row(source) for source in _sources(storage, run, found) if source.found.key > after)


def _sources(storage: Storage, run: PreparedRun, found: Survey) -> Iterator[Source]:
    """Yield the sources of the run, in order of key."""
    identity, twins = run.identity, TwinFinder()
    if identity.follow_up == "retry_failed":
        yield from failed_sources(storage, identity, run.history)
        return
    rule, styles = identity.style_rule, [style.name for style in identity.styles]
    listing = find_sources(storage, identity.input, column=rule.column)
    if identity.follow_up is None:
        for listed in listing:
            source = twins.add(listed)
            source.style, source.style_problem = rule.choose(listed, styles)
            yield source
        return
    num_listed = num_changed = 0

    def counted() -> Iterator[Any]:
        nonlocal num_listed
        for listed in listing:
            num_listed += 1
            yield listed

    for source in changed_sources(storage, identity, run.history, counted(), lambda _: None):
        num_changed += 1
        yield source
    found.num_done += num_listed - num_changed


def _decode(storage: Storage, run: PreparedRun, rows: list[dict[str, Any]], found: Survey) -> list[SourceImage]:
    """Decode the sample as the run would; return its first images."""
    images: list[SourceImage] = []
    settings = run.identity.settings
    deadline_s, megapixels, milliseconds = time.monotonic() + SAMPLE_S, 0.0, 0.0
    read = Reader(storage, run.config.decode)
    for row in rows:
        if found.num_sampled and time.monotonic() > deadline_s:
            break
        sample = read(row)
        found.num_sampled += 1
        if sample.failure is not None or sample.source is None:
            is_skipped = isinstance(sample.failure, NotAnImage)
            found.num_failed += not is_skipped
            found.reasons[getattr(sample.failure, "error_type", "Unknown")] += 1
            continue
        source = sample.source
        found.num_images += 1
        milliseconds += sample.decode_ms or 0.0
        scale = min(1.0, (settings["max_size_px"] or 1e9) / max(source.width_px, source.height_px))
        megapixels += scale**2 * source.width_px * source.height_px * max(1, len(source.frames)) / 1e6
        if len(images) < NUM_PAINTED:
            images.append(source)
    if found.num_images:
        found.megapixels = megapixels / found.num_images
        found.decode_s = milliseconds / 1000 / found.num_images
    return images


def _paint(
    run: PreparedRun, models: list[StyleModel], images: list[SourceImage], found: Survey, num_threads: int
) -> None:
    """Paint and encode the middle of some images in every style, with the threads of one worker."""
    from stylemill.nn.fast_net import FastNet
    from stylemill.nn.speed import TRIAL_SIDE_PX, measure_speed

    settings, paint_s, encode_s, size_bytes = run.identity.settings, 0.0, 0.0, 0.0
    if not images:
        return
    with _threads(num_threads):
        for model in models:
            net = FastNet(model.build_network(), precision=settings["precision"])
            for source in images:
                top, left = (max(0, (side - TRIAL_SIDE_PX) // 2) for side in source.image_HWC.shape[:2])
                middle_HWC = source.image_HWC[top : top + TRIAL_SIDE_PX, left : left + TRIAL_SIDE_PX]
                speed = measure_speed(net, middle_HWC)
                found.precision = speed.precision
                start_s = time.perf_counter()
                # Alpha and metadata belong to the whole image.
                opaque = replace(source, image_HWC=middle_HWC, alpha_HW=None, frames=(), metadata=Metadata())
                encoded = encode(speed.painted_HWC, opaque, run.config.encode)
                megapixels = middle_HWC.shape[0] * middle_HWC.shape[1] / 1e6
                paint_s += speed.seconds_per_megapixel
                encode_s += (time.perf_counter() - start_s) / megapixels
                size_bytes += len(encoded.data) / megapixels
    num_paintings = len(images)
    if run.identity.style_rule.by is not None:  # each image in one of the styles
        num_paintings *= len(models)
    found.paint_s_per_megapixel = paint_s / num_paintings / settings["texture_scale"] ** 2
    found.encode_s_per_megapixel = encode_s / num_paintings
    found.bytes_per_megapixel = size_bytes / num_paintings


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Let torch use as many threads as a worker does, while the body runs."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
