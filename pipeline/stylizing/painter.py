"""The stylize stage: the network, and the controls around it."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.errors import ConfigError, ImageError
from pipeline.images import controls
from pipeline.manifest.layout import RunLayout
from pipeline.nn.fast import FastNet
from pipeline.nn.memory import choose_forward
from pipeline.nn.precision import resolve_precision
from pipeline.nn.tiled import stylize_by_thumbnail, stylize_tiled
from pipeline.storage import Storage
from pipeline.style_model import load_style_model
from pipeline.stylizing.config import StylizeConfig
from pipeline.stylizing.identity import StyleRef
from pipeline.stylizing.sample import Painted, Sample

Image = NDArray[np.uint8]
Batch = Callable[[list[Image]], Sequence[Image]]
"""Repaints images of equal size, each (H, W, 3) uint8."""


class Painter:
    """Repaints samples in every style of the run; the models are loaded once.

    Args:
        storage: where the run's copies of the models lie.
        layout: of the run.
        styles: the run's styles; a model of another digest is refused.
        config: precision, device and controls.

    Raises:
        ConfigError: a model in the run's folder is not the one that was planned.
    """

    def __init__(self, storage: Storage, layout: RunLayout, styles: Sequence[StyleRef], config: StylizeConfig) -> None:
        torch.set_num_threads(config.threads_per_actor)
        precision = resolve_precision(config.precision, config.device)
        self._config = config
        self._nets: dict[str, FastNet] = {}
        for style in styles:
            uri = layout.model_uri(style.name)
            model = load_style_model(storage, uri)
            if model.sha256 != style.model_sha256:
                cure = "restore it, or start a run with another --run-id"
                raise ConfigError("model", uri, "is not the model that this run was planned with", cure)
            self._nets[style.name] = FastNet(model.build_network(), precision=precision, device=config.device)

    def __call__(self, sample: Sample) -> Sample:
        """Fill in ``sample.painted`` for every style, with an ImageError where it could not be done."""
        if sample.failure is None:
            for style, net in self._nets.items():
                try:
                    sample.painted[style] = self._paint(sample, net)
                except ImageError as failure:
                    sample.painted[style] = failure
        return sample

    def paint_all(self, samples: Sequence[Sample]) -> list[Sample]:
        """Paint samples, those of equal size together where the device gains from it."""
        batch_size = self._config.batch_size if self._config.device == "cuda" else 1
        by_shape: dict[tuple[int, ...], list[Sample]] = defaultdict(list)
        for sample in samples:
            if sample.failure is None and sample.source is not None and not sample.source.frames:
                by_shape[sample.source.image_HWC.shape].append(sample)
        for equal in by_shape.values():
            for start in range(0, len(equal), batch_size):
                together = equal[start : start + batch_size]
                if len(together) > 1:
                    self._paint_together(together)
        return [sample if sample.painted else self(sample) for sample in samples]

    def _paint_together(self, samples: Sequence[Sample]) -> None:
        """Paint a batch; one that does not fit the memory is left to be painted in halves, or one by one."""
        for style, net in self._nets.items():
            start_s = time.perf_counter()
            images = [sample.source.image_HWC for sample in samples if sample.source is not None]
            try:
                painted = self._controlled(images, _together(net))
            except torch.OutOfMemoryError:
                torch.cuda.empty_cache()
                for sample in samples:
                    sample.painted.clear()
                half = len(samples) // 2
                for part in (samples[:half], samples[half:]):
                    if len(part) > 1:
                        self._paint_together(part)
                return
            each_ms = 1000 * (time.perf_counter() - start_s) / len(samples)
            for sample, image_HWC in zip(samples, painted, strict=True):
                sample.painted[style] = Painted(frames_HWC=[image_HWC], forward="batch", stylize_ms=each_ms)

    def _paint(self, sample: Sample, net: FastNet) -> Painted:
        assert sample.source is not None
        start_s = time.perf_counter()
        frames = [frame.image_HWC for frame in sample.source.frames] or [sample.source.image_HWC]
        forward = "whole" if self._config.device == "cuda" else self.choose_forward(frames[0].shape[:2], net)
        stylize = _one_by_one(net) if forward == "whole" else _in_tiles(net, self._config)
        try:
            painted = [self._controlled([frame], stylize)[0] for frame in frames]
        except (MemoryError, torch.OutOfMemoryError) as error:
            raise _out_of_memory(sample) from error
        except RuntimeError as error:
            if "memory" not in str(error):
                raise
            raise _out_of_memory(sample) from error
        return Painted(frames_HWC=painted, forward=forward, stylize_ms=1000 * (time.perf_counter() - start_s))

    def choose_forward(self, size_px: tuple[int, ...], net: FastNet) -> str:
        """Return ``whole`` or ``tiled`` for an image of this height and width, after the controls that resize it."""
        height_px, width_px = size_px
        limit_px = self._config.max_size_px or max(size_px)
        shrunk = controls.scaled_size(width_px, height_px, min(1.0, limit_px / max(size_px)), least_px=1)
        seen_width_px, seen_height_px = controls.network_size(*shrunk, self._config.texture_scale)
        choice = choose_forward(
            (seen_height_px, seen_width_px),
            net.architecture,
            net.precision,
            max_memory_bytes=self._config.max_memory_bytes,
        )
        return choice.forward

    def _controlled(self, images: Sequence[Image], stylize: Batch) -> list[Image]:
        """Run the network on images of equal size under the controls: size, strokes, colour, strength."""
        config = self._config
        sources = [controls.limit_size(image_HWC, config.max_size_px) for image_HWC in images]
        if config.strength == 0:
            return sources
        height_px, width_px = sources[0].shape[:2]
        seen_px = controls.network_size(width_px, height_px, config.texture_scale)
        painted = stylize([controls.resize(source_HWC, *seen_px) for source_HWC in sources])
        results = [controls.resize(result_HWC, width_px, height_px) for result_HWC in painted]
        if config.preserve_color:
            results = [controls.preserve_color(*pair) for pair in zip(sources, results, strict=True)]
        return [controls.blend(*pair, config.strength) for pair in zip(sources, results, strict=True)]


def _one_by_one(net: FastNet) -> Batch:
    return lambda images: [net.stylize(image_HWC) for image_HWC in images]


def _in_tiles(net: FastNet, config: StylizeConfig) -> Batch:
    paint = stylize_tiled if config.tiles == "exact" else stylize_by_thumbnail
    return lambda images: [paint(net, image_HWC, max_memory_bytes=config.max_memory_bytes) for image_HWC in images]


def _together(net: FastNet) -> Batch:
    return lambda images: list(net.stylize_batch(np.stack(images)))


def _out_of_memory(sample: Sample) -> ImageError:
    size = f"{sample.width_px} x {sample.height_px} px"
    return ImageError(
        "OutOfMemory", f"painting {size} took more memory than there is; lower --max-memory or --max-size-px"
    )
