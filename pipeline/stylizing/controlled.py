"""What surrounds the network: size, strokes, colour and strength, as the user chose them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.images import controls
from pipeline.stylizing.config import StylizeConfig

Image = NDArray[np.uint8]


class Controlled:
    """The user's controls before and after the network.

    Args:
        config: the controls.
    """

    def __init__(self, config: StylizeConfig) -> None:
        self._config = config
        self.needs_network = config.strength > 0
        """Without it ``limited`` gives the result already."""

    def limited(self, image_HWC: Image) -> Image:
        """Return a source, (H, W, 3) uint8, at the size that its result will have."""
        return controls.limit_size(image_HWC, self._config.max_size_px)

    def for_network(self, source_HWC: Image) -> Image:
        """Return a limited source at the size at which the network shall see it."""
        height_px, width_px = source_HWC.shape[:2]
        return controls.resize(source_HWC, *controls.network_size(width_px, height_px, self._config.texture_scale))

    def finished(self, source_HWC: Image, painted_HWC: Image) -> Image:
        """Return the result: what the network made of a limited source, under colour and strength."""
        height_px, width_px = source_HWC.shape[:2]
        result_HWC = controls.resize(painted_HWC, width_px, height_px)
        if self._config.preserve_color:
            result_HWC = controls.preserve_color(source_HWC, result_HWC)
        return controls.blend(source_HWC, result_HWC, self._config.strength)

    def seen_size(self, size_px: tuple[int, ...]) -> tuple[int, int]:
        """Return the height and width at which the network sees a source of this height and width."""
        height_px, width_px = size_px
        limit_px = self._config.max_size_px or max(size_px)
        shrunk = controls.scaled_size(width_px, height_px, min(1.0, limit_px / max(size_px)), least_px=1)
        seen_width_px, seen_height_px = controls.network_size(*shrunk, self._config.texture_scale)
        return seen_height_px, seen_width_px
