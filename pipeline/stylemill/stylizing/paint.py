"""Painting the samples of a run, in all its styles.

``Painter`` loads the models once and paints samples one by one (``painting/painter.py``). On a GPU, ``BatchPainter``
paints images of equal size together and keeps several batches in flight: while the device works on one, the next is
prepared and the previous one is finished.
"""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from stylemill.errors import ConfigError, ImageError
from stylemill.machines import IdleCores
from stylemill.manifest.layout import RunLayout
from stylemill.nn.fast_net import FastNet, PendingBatch
from stylemill.nn.precision import resolve_precision
from stylemill.painting.options import PaintOptions
from stylemill.painting.painter import Controls, Image, ImagePainter, frames_of
from stylemill.storage import Storage
from stylemill.style_model import StyleModel, load_style_model
from stylemill.stylizing.config import StylizeConfig
from stylemill.stylizing.environment import agree_on_kernels, agree_on_precision
from stylemill.stylizing.identity import RunIdentity
from stylemill.stylizing.looks import FolderLooks
from stylemill.stylizing.sample import Painted, Sample

BATCHES_IN_FLIGHT = 3
"""Maximum number of batches that are started and not finished."""


@dataclass(frozen=True, kw_only=True)
class _RunningBatch:
    """One batch in flight, in every style."""

    samples: Sequence[Sample]
    sources: Sequence[Image]
    results: Mapping[str, PendingBatch]
    """By style."""
    start_s: float


class BatchPainter:
    """Paints many samples in their styles.

    A batch that does not fit the device's memory is tried once more with no other in flight, then in halves; later
    batches are no larger than the half.

    Args:
        nets: style -> its network.
        config: batch size and controls.
    """

    def __init__(self, nets: Mapping[str, FastNet], config: StylizeConfig) -> None:
        self._nets = nets
        self._batch_size = config.batch_size
        self._controls = Controls(config.paint)
        self._max_pixels: int | None = None
        self._last_s = 0.0

    def __call__(self, samples: Sequence[Sample]) -> None:
        """Fill in ``painted``, but not of animations and of images that do not fit the device even alone."""
        waiting = deque(self._batches(samples))
        running: deque[_RunningBatch] = deque()
        while waiting or running:
            if not waiting or len(running) == BATCHES_IN_FLIGHT:
                self._finish(running.popleft())
                continue
            batch = waiting.popleft()
            started = self._start(batch)
            if started is None:
                while running:
                    self._finish(running.popleft())
                started = self._start(batch)
            if started is not None:
                running.append(started)
            elif len(batch) > 1:
                half = len(batch) // 2
                waiting.extendleft((batch[half:], batch[:half]))
                self._max_pixels = half * self._pixels(batch[0])

    def _batches(self, samples: Sequence[Sample]) -> Iterator[list[Sample]]:
        by_shape: dict[tuple[tuple[int, ...], str | None], list[Sample]] = defaultdict(list)
        for sample in samples:
            if sample.failure is None and sample.source is not None and not sample.source.frames:
                by_shape[sample.source.image_HWC.shape, sample.planned.get("style")].append(sample)
        for equal in by_shape.values():
            size = self._batch_size
            if self._max_pixels is not None:
                size = max(1, min(size, self._max_pixels // self._pixels(equal[0])))
            for start in range(0, len(equal), size):
                yield equal[start : start + size]

    def _pixels(self, sample: Sample) -> int:
        """Return the number of pixels at the size at which the network runs on a sample."""
        assert sample.source is not None
        height_px, width_px = self._controls.network_size(sample.source.image_HWC.shape[:2])
        return height_px * width_px

    def _start(self, samples: Sequence[Sample]) -> _RunningBatch | None:
        """Start a batch; return None if it does not fit the device's memory."""
        start_s = time.perf_counter()
        sources = [
            self._controls.limit_size(sample.source.image_HWC) for sample in samples if sample.source is not None
        ]
        inputs_NHWC = np.stack([self._controls.scale_to_network(source_HWC) for source_HWC in sources])
        results: dict[str, PendingBatch] = {}
        try:
            for style, net in self._nets.items():
                if not samples[0].is_in(style):  # a batch has one style, or all
                    continue
                results[style] = net.submit_batch(inputs_NHWC)
        except torch.OutOfMemoryError:
            for pending in results.values():
                pending.result()
            torch.cuda.empty_cache()
            return None
        return _RunningBatch(samples=samples, sources=sources, results=results, start_s=start_s)

    def _finish(self, batch: _RunningBatch) -> None:
        painted_by_style = {style: pending.result() for style, pending in batch.results.items()}
        now_s = time.perf_counter()
        # The time from the start of a batch includes earlier batches: count from the end of the previous one.
        each_ms = 1000 * (now_s - max(batch.start_s, self._last_s)) / len(batch.samples) / len(batch.results)
        self._last_s = now_s
        forward = "batch" if len(batch.samples) > 1 else "whole"
        for style, painted_NHWC in painted_by_style.items():
            for sample, source_HWC, painted_HWC in zip(batch.samples, batch.sources, painted_NHWC, strict=True):
                result_HWC = self._controls.finish(source_HWC, painted_HWC)
                sample.painted[style] = Painted(frames_HWC=[result_HWC], forward=forward, stylize_ms=each_ms)


class Painter:
    """Repaints samples in every style of the run; the models are loaded once.

    Args:
        storage: where the run's copies of the models are.
        layout: of the run.
        identity: the run's styles, of which a model with another digest is refused, and its input.
        config: precision, device and controls.
        use_idle_cores: whether images that are painted in tiles may use more threads than are reserved.

    Raises:
        ConfigError: a model in the run's folder is not the one that the run was planned with, or this machine paints
            otherwise than those on which the run began.
    """

    def __init__(
        self,
        storage: Storage,
        layout: RunLayout,
        identity: RunIdentity,
        config: StylizeConfig,
        *,
        use_idle_cores: bool = False,
    ) -> None:
        torch.set_num_threads(config.threads_per_actor)
        idle_cores = IdleCores(config.threads_per_actor) if use_idle_cores else None
        precision = _agreed_precision(storage, layout, config.paint)
        self._controls = Controls(config.paint)
        nets: dict[str, FastNet] = {}
        models: dict[str, StyleModel] = {}
        for style in identity.styles:
            uri = layout.model_uri(style.name)
            model = models[style.name] = load_style_model(storage, uri)
            if model.sha256 != style.model_sha256:
                cure = "restore it, or start a run with another --run-id"
                raise ConfigError("model", uri, "is not the model that this run was planned with", cure)
            net = FastNet(model.build_network(), precision=precision, device=config.paint.device)
            if config.paint.device == "cpu":
                agree_on_kernels(storage, layout, style.name, net.layers.kernels())
            nets[style.name] = net
        self.painters = {style: ImagePainter(net, config.paint, idle_cores) for style, net in nets.items()}
        """By style."""

        def build(model: StyleModel) -> ImagePainter:
            return ImagePainter(FastNet(model.build_network(), precision=precision), config.paint, idle_cores)

        self._folder_looks: FolderLooks | None = None
        if config.look == "folder":
            self._folder_looks = FolderLooks(storage, config, identity.input, layout.out, models, build)
        self._in_batches = BatchPainter(nets, config) if config.paint.device == "cuda" else None

    def num_pixels(self, sample: Sample) -> int:
        """Return the number of pixels that the network paints of a sample, in all frames; 0 if it was not decoded."""
        if sample.source is None:
            return 0
        sizes = (self._controls.network_size(image_HWC.shape[:2]) for image_HWC in frames_of(sample.source))
        return sum(height_px * width_px for height_px, width_px in sizes)

    def __call__(self, sample: Sample) -> Sample:
        """Fill in ``sample.painted`` for every style of the sample, with an ImageError if it failed."""
        if sample.failure is None:
            assert sample.source is not None
            frames = frames_of(sample.source)
            for style, painter in self.painters.items():
                if not sample.is_in(style):
                    continue
                if self._folder_looks is not None and self._controls.needs_network:
                    painter = self._folder_looks.painter(style, sample.key) or painter  # noqa: PLW2901
                try:
                    sample.painted[style] = _timed(painter, frames)
                except ImageError as failure:
                    sample.painted[style] = failure
        return sample

    def paint_all(self, samples: Sequence[Sample]) -> list[Sample]:
        """Paint samples, on a GPU in batches."""
        if self._in_batches is not None and self._controls.needs_network:
            self._in_batches(samples)
        return [sample if sample.painted else self(sample) for sample in samples]


def _timed(painter: ImagePainter, frames: Sequence[Image]) -> Painted:
    start_s = time.perf_counter()
    frames_HWC, forward = painter.paint(frames)
    return Painted(frames_HWC=frames_HWC, forward=forward, stylize_ms=1000 * (time.perf_counter() - start_s))


def _agreed_precision(storage: Storage, layout: RunLayout, options: PaintOptions) -> str:
    mine = resolve_precision(options.precision, options.device)
    agreed = agree_on_precision(storage, layout, mine)
    if agreed == "bfloat16" and mine != agreed:
        cure = "use machines like the first ones, or start another run with --precision float32"
        problem = "means bfloat16 in this run, which this machine does not multiply natively"
        raise ConfigError("precision", options.precision, problem, cure)
    return agreed
