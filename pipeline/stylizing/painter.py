"""The stylize stage: the network, and the controls around it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

import torch

from pipeline.errors import ConfigError, ImageError
from pipeline.manifest.layout import RunLayout
from pipeline.nn.fast import FastNet
from pipeline.nn.memory import choose_forward
from pipeline.nn.precision import resolve_precision
from pipeline.nn.tiled import stylize_by_thumbnail, stylize_tiled
from pipeline.storage import Storage
from pipeline.style_model import load_style_model
from pipeline.stylizing.batch_painter import BatchPainter
from pipeline.stylizing.config import StylizeConfig
from pipeline.stylizing.controlled import Controlled, Image
from pipeline.stylizing.identity import StyleRef
from pipeline.stylizing.sample import Painted, Sample

log = logging.getLogger(__name__)

Stylize = Callable[[Image], Image]
"""Repaints one image, (H, W, 3) uint8."""


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
        self._controlled = Controlled(config)
        self._nets: dict[str, FastNet] = {}
        for style in styles:
            uri = layout.model_uri(style.name)
            model = load_style_model(storage, uri)
            if model.sha256 != style.model_sha256:
                cure = "restore it, or start a run with another --run-id"
                raise ConfigError("model", uri, "is not the model that this run was planned with", cure)
            self._nets[style.name] = FastNet(model.build_network(), precision=precision, device=config.device)
        self._in_batches = BatchPainter(self._nets, config)

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
        """Paint samples, in batches where the device gains from them."""
        if self._config.device == "cuda" and self._controlled.needs_network:
            self._in_batches(samples)
        return [sample if sample.painted else self(sample) for sample in samples]

    def _paint(self, sample: Sample, net: FastNet) -> Painted:
        assert sample.source is not None
        start_s = time.perf_counter()
        frames = [frame.image_HWC for frame in sample.source.frames] or [sample.source.image_HWC]
        try:
            painted, forward = self._paint_frames(frames, net)
        except MemoryError as error:
            raise _out_of_memory(sample) from error
        except RuntimeError as error:
            if "memory" not in str(error):
                raise
            raise _out_of_memory(sample) from error
        return Painted(frames_HWC=painted, forward=forward, stylize_ms=1000 * (time.perf_counter() - start_s))

    def _paint_frames(self, frames: Sequence[Image], net: FastNet) -> tuple[list[Image], str]:
        """Return the results, and whether they were painted ``whole`` or ``tiled``."""
        on_gpu = self._config.device == "cuda"
        if on_gpu or self.choose_forward(frames[0].shape[:2], net) == "whole":
            try:
                return [self._result(frame, net.stylize) for frame in frames], "whole"
            except torch.OutOfMemoryError:
                log.debug("an image does not fit the GPU and is painted on the CPU beside it")
        in_tiles = _in_tiles(net, self._config)
        return [self._result(frame, in_tiles) for frame in frames], "tiled"

    def choose_forward(self, size_px: tuple[int, ...], net: FastNet) -> str:
        """Return ``whole`` or ``tiled`` for an image of this height and width, after the controls that resize it."""
        choice = choose_forward(
            self._controlled.seen_size(size_px),
            net.architecture,
            net.precision,
            max_memory_bytes=self._config.max_memory_bytes,
        )
        return choice.forward

    def _result(self, image_HWC: Image, stylize: Stylize) -> Image:
        """Run the network on one image under the controls."""
        source_HWC = self._controlled.limited(image_HWC)
        if not self._controlled.needs_network:
            return source_HWC
        return self._controlled.finished(source_HWC, stylize(self._controlled.for_network(source_HWC)))


def _in_tiles(net: FastNet, config: StylizeConfig) -> Stylize:
    paint = stylize_tiled if config.tiles == "exact" else stylize_by_thumbnail
    return lambda image_HWC: paint(net, image_HWC, max_memory_bytes=config.max_memory_bytes)


def _out_of_memory(sample: Sample) -> ImageError:
    size = f"{sample.width_px} x {sample.height_px} px"
    return ImageError(
        "OutOfMemory", f"painting {size} took more memory than there is; lower --max-memory or --max-size-px"
    )
