"""The stylize stage: the network, and the controls around it."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.errors import ConfigError, ImageError
from pipeline.images import controls
from pipeline.manifest.layout import RunLayout
from pipeline.nn.fast import FastNet
from pipeline.nn.precision import resolve_precision
from pipeline.storage import Storage
from pipeline.style_model import load_style_model
from pipeline.stylizing.config import StylizeConfig
from pipeline.stylizing.identity import StyleRef
from pipeline.stylizing.sample import Painted, Sample


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
            for style in self._nets:
                try:
                    sample.painted[style] = self._paint(sample, style)
                except ImageError as failure:
                    sample.painted[style] = failure
        return sample

    def _paint(self, sample: Sample, style: str) -> Painted:
        assert sample.source is not None
        start_s = time.perf_counter()
        frames = [frame.image_HWC for frame in sample.source.frames] or [sample.source.image_HWC]
        try:
            painted = [self._paint_frame(frame, style) for frame in frames]
        except (MemoryError, torch.OutOfMemoryError) as error:
            raise _out_of_memory(sample) from error
        except RuntimeError as error:
            if "memory" not in str(error):
                raise
            raise _out_of_memory(sample) from error
        return Painted(frames_HWC=painted, forward="whole", stylize_ms=1000 * (time.perf_counter() - start_s))

    def _paint_frame(self, image_HWC: NDArray[np.uint8], style: str) -> NDArray[np.uint8]:
        config = self._config
        source_HWC = controls.limit_size(image_HWC, config.max_size_px)
        if config.strength == 0:
            return source_HWC
        result_HWC = controls.at_scale(source_HWC, config.texture_scale, self._nets[style].stylize)
        if config.preserve_color:
            result_HWC = controls.preserve_color(source_HWC, result_HWC)
        return controls.blend(source_HWC, result_HWC, config.strength)


def _out_of_memory(sample: Sample) -> ImageError:
    size = f"{sample.width_px} x {sample.height_px} px"
    return ImageError(
        "OutOfMemory", f"painting {size} took more memory than there is; lower --max-memory or --max-size-px"
    )
