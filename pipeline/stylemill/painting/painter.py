"""Repaints images with one network: whole or in tiles, with the user's controls before and after it.

``Controls`` applies size, texture scale, colour and strength around the network. ``ImagePainter`` also chooses how the
network runs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stylemill.errors import ImageError
from stylemill.images import controls
from stylemill.painting.options import PaintOptions

if TYPE_CHECKING:
    from stylemill.images.source_image import SourceImage
    from stylemill.machines import IdleCores
    from stylemill.nn.fast_net import FastNet

log = logging.getLogger(__name__)

Image = NDArray[np.uint8]
"""(H, W, 3) uint8."""

Stylize = Callable[[Image], Image]
"""Repaints one image."""


class Controls:
    """Applies the user's controls before and after the network.

    Args:
        options: the controls.
    """

    def __init__(self, options: PaintOptions) -> None:
        self._options = options
        self.needs_network = options.strength > 0
        """If False, ``limit_size`` returns the result already."""

    def limit_size(self, image_HWC: Image) -> Image:
        """Return a source at the size of its result."""
        return controls.limit_size(image_HWC, self._options.max_size_px)

    def scale_to_network(self, source_HWC: Image) -> Image:
        """Return a size-limited source at the size at which the network runs on it."""
        height_px, width_px = source_HWC.shape[:2]
        return controls.resize(source_HWC, *controls.network_size(width_px, height_px, self._options.texture_scale))

    def finish(self, source_HWC: Image, painted_HWC: Image) -> Image:
        """Return the result: the network's output at the size of the limited source, with colour and strength set."""
        height_px, width_px = source_HWC.shape[:2]
        result_HWC = controls.resize(painted_HWC, width_px, height_px)
        if self._options.preserve_color:
            result_HWC = controls.preserve_color(source_HWC, result_HWC)
        return controls.blend(source_HWC, result_HWC, self._options.strength)

    def network_size(self, size_px: tuple[int, ...]) -> tuple[int, int]:
        """Return the height and width at which the network runs on a source of this height and width."""
        height_px, width_px = size_px
        limit_px = self._options.max_size_px or max(size_px)
        shrunk = controls.scaled_size(width_px, height_px, min(1.0, limit_px / max(size_px)), least_px=1)
        network_width_px, network_height_px = controls.network_size(*shrunk, self._options.texture_scale)
        return network_height_px, network_width_px


class ImagePainter:
    """Repaints images with one network, one by one.

    Args:
        net: the network; its precision and device count, not those of ``options``.
        options: controls and memory.
        idle_cores: asked for the number of threads with which to paint a large image; None uses those of ``net``.
    """

    def __init__(self, net: FastNet, options: PaintOptions, idle_cores: IdleCores | None = None) -> None:
        self.net, self._idle_cores = net, idle_cores
        self._controls = Controls(options)
        self._max_memory_bytes = options.max_memory_bytes

    def paint(self, frames_HWC: Sequence[Image]) -> tuple[list[Image], str]:
        """Repaint the frames of one source, or its only image.

        Args:
            frames_HWC: each (H, W, 3) uint8, all of one size.
        Returns:
            The results, and how they were painted: ``whole`` or ``tiled``.
        Raises:
            ImageError: ``OutOfMemory``, ``ScratchFull``.
        """
        try:
            return self._paint(frames_HWC)
        except MemoryError as error:
            raise _out_of_memory(frames_HWC[0]) from error
        except RuntimeError as error:
            if "memory" not in str(error):
                raise
            raise _out_of_memory(frames_HWC[0]) from error

    def _paint(self, frames_HWC: Sequence[Image]) -> tuple[list[Image], str]:
        import torch

        from stylemill.nn.tiled import stylize_tiled

        if self.net.device.type != "cpu" or self._fits_whole(frames_HWC[0].shape[:2]):
            try:
                return [self._result(frame_HWC, self.net.stylize) for frame_HWC in frames_HWC], "whole"
            except torch.OutOfMemoryError:
                log.debug("an image does not fit the GPU and is painted on the CPU")

        if self._idle_cores is not None:
            self._idle_cores.start()

        def in_tiles(image_HWC: Image) -> Image:
            return stylize_tiled(
                self.net, image_HWC, max_memory_bytes=self._max_memory_bytes, idle_cores=self._idle_cores
            )

        return [self._result(frame_HWC, in_tiles) for frame_HWC in frames_HWC], "tiled"

    def _fits_whole(self, size_px: tuple[int, ...]) -> bool:
        """Return whether a source of this height and width can be painted whole within the memory limit."""
        from stylemill.nn.memory import choose_forward

        choice = choose_forward(
            self._controls.network_size(size_px),
            self.net.architecture,
            self.net.precision,
            max_memory_bytes=self._max_memory_bytes,
        )
        return choice.forward == "whole"

    def _result(self, image_HWC: Image, stylize: Stylize) -> Image:
        """Return one image painted, with the controls applied."""
        source_HWC = self._controls.limit_size(image_HWC)
        if not self._controls.needs_network:
            return source_HWC
        return self._controls.finish(source_HWC, stylize(self._controls.scale_to_network(source_HWC)))


def frames_of(source: SourceImage) -> list[Image]:
    """Return what is painted of a source: all frames of an animation that was decoded as one, else one image."""
    return [frame.image_HWC for frame in source.frames] or [source.image_HWC]


def _out_of_memory(image_HWC: Image) -> ImageError:
    size = f"{image_HWC.shape[1]} x {image_HWC.shape[0]} px"
    return ImageError(
        "OutOfMemory", f"painting {size} took more memory than there is; lower --max-memory or --max-size-px"
    )
