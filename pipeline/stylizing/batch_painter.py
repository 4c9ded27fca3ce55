"""Painting for a device that gains from batches: equal sizes together, several batches in flight.

While the device works on one batch, the next is put together and the one before is brought back.
"""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from pipeline.nn.fast import FastNet, Flight
from pipeline.stylizing.config import StylizeConfig
from pipeline.stylizing.controlled import Controlled, Image
from pipeline.stylizing.sample import Painted, Sample

BATCHES_IN_FLIGHT = 3
"""Batches that have been started and not brought back, at most."""


@dataclass(frozen=True, kw_only=True)
class _Started:
    """One batch that the device is at work on, in every style."""

    samples: Sequence[Sample]
    sources: Sequence[Image]
    flights: Mapping[str, Flight]
    start_s: float


class BatchPainter:
    """Paints many samples in every style of the run.

    A batch that does not fit the device's memory is tried once more alone, then in halves; later batches are made no
    larger than what fitted.

    Args:
        nets: style -> its network.
        config: size of a batch, and the controls.
    """

    def __init__(self, nets: Mapping[str, FastNet], config: StylizeConfig) -> None:
        self._nets = nets
        self._batch_size = config.batch_size
        self._controlled = Controlled(config)
        self._most_pixels: int | None = None
        self._last_s = 0.0

    def __call__(self, samples: Sequence[Sample]) -> None:
        """Fill in ``painted`` of samples with one frame; one that does not fit even alone is left without."""
        waiting = deque(self._batches(samples))
        started: deque[_Started] = deque()
        while waiting or started:
            if not waiting or len(started) == BATCHES_IN_FLIGHT:
                self._finish(started.popleft())
                continue
            batch = waiting.popleft()
            flying = self._start(batch)
            if flying is None:
                while started:
                    self._finish(started.popleft())
                flying = self._start(batch)
            if flying is not None:
                started.append(flying)
            elif len(batch) > 1:
                half = len(batch) // 2
                waiting.extendleft((batch[half:], batch[:half]))
                self._most_pixels = half * self._pixels(batch[0])

    def _batches(self, samples: Sequence[Sample]) -> Iterator[list[Sample]]:
        by_shape: dict[tuple[int, ...], list[Sample]] = defaultdict(list)
        for sample in samples:
            if sample.failure is None and sample.source is not None and not sample.source.frames:
                by_shape[sample.source.image_HWC.shape].append(sample)
        for equal in by_shape.values():
            size = self._batch_size
            if self._most_pixels is not None:
                size = max(1, min(size, self._most_pixels // self._pixels(equal[0])))
            for start in range(0, len(equal), size):
                yield equal[start : start + size]

    def _pixels(self, sample: Sample) -> int:
        """Return how many pixels of a sample the network sees."""
        assert sample.source is not None
        height_px, width_px = self._controlled.seen_size(sample.source.image_HWC.shape[:2])
        return height_px * width_px

    def _start(self, samples: Sequence[Sample]) -> _Started | None:
        """Put a batch on its way; None if the device has not the memory."""
        start_s = time.perf_counter()
        sources = [self._controlled.limited(sample.source.image_HWC) for sample in samples if sample.source is not None]
        seen_NHWC = np.stack([self._controlled.for_network(source_HWC) for source_HWC in sources])
        flights: dict[str, Flight] = {}
        try:
            for style, net in self._nets.items():
                flights[style] = net.submit_batch(seen_NHWC)
        except torch.OutOfMemoryError:
            for flight in flights.values():
                flight.result()
            torch.cuda.empty_cache()
            return None
        return _Started(samples=samples, sources=sources, flights=flights, start_s=start_s)

    def _finish(self, batch: _Started) -> None:
        painted_by_style = {style: flight.result() for style, flight in batch.flights.items()}
        now_s = time.perf_counter()
        # Of the time since it was started, a batch has not used what the ones before it took.
        each_ms = 1000 * (now_s - max(batch.start_s, self._last_s)) / len(batch.samples) / len(self._nets)
        self._last_s = now_s
        forward = "batch" if len(batch.samples) > 1 else "whole"
        for style, painted_NHWC in painted_by_style.items():
            for sample, source_HWC, painted_HWC in zip(batch.samples, batch.sources, painted_NHWC, strict=True):
                result_HWC = self._controlled.finished(source_HWC, painted_HWC)
                sample.painted[style] = Painted(frames_HWC=[result_HWC], forward=forward, stylize_ms=each_ms)
