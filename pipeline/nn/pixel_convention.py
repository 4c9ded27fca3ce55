"""On which scale a network takes and gives its pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

ChannelOrder = Literal["rgb", "bgr"]
Normalisation = Literal["imagenet", "none"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Per channel (red, green, blue), for values in [0, 1]. Source: torchvision's ImageNet recipes."""

_LARGEST_SCALE = 1e6


@dataclass(frozen=True, kw_only=True)
class PixelConvention:
    """What the first convolution of a network gets for a level of 0 to 255, and what its output means.

    With the default, ``(level / 255 - mean) / std`` goes in and ``value x std + mean`` times 255 is the level that
    comes out. Networks trained elsewhere were trained on other scales.

    Raises:
        ValueError: an unknown word, or a scale that is not a positive number.
    """

    input_scale: float = 1 / 255
    """Levels are multiplied by it before they are normalised."""
    output_scale: float = 255.0
    """What the network gives is multiplied by it, once the normalisation is undone."""
    channel_order: ChannelOrder = "rgb"
    """Order of the channels of input and output."""
    normalisation: Normalisation = "imagenet"
    """Whether ImageNet's mean and deviation are taken off the scaled levels, and put back on the output."""

    def __post_init__(self) -> None:
        for name in ("input_scale", "output_scale"):
            scale = getattr(self, name)
            if not isinstance(scale, int | float) or not 1 / _LARGEST_SCALE <= scale <= _LARGEST_SCALE:
                raise ValueError(f"{name} must be a positive number, got {scale!r}")
        for name, words in (("channel_order", get_args(ChannelOrder)), ("normalisation", get_args(Normalisation))):
            if getattr(self, name) not in words:
                raise ValueError(f"{name} must be one of {words}, got {getattr(self, name)!r}")

    @property
    def channels(self) -> tuple[int, int, int]:
        """Which of red, green and blue (0, 1, 2) each of the network's channels is; its own inverse."""
        return (0, 1, 2) if self.channel_order == "rgb" else (2, 1, 0)

    @property
    def mean(self) -> tuple[float, ...]:
        """What is taken off the scaled levels, in the order red, green, blue."""
        return IMAGENET_MEAN if self.normalisation == "imagenet" else (0.0, 0.0, 0.0)

    @property
    def std(self) -> tuple[float, ...]:
        """What they are then divided by, in the order red, green, blue."""
        return IMAGENET_STD if self.normalisation == "imagenet" else (1.0, 1.0, 1.0)

    @property
    def levels_per_unit(self) -> float:
        """Levels to one unit of the scaled input."""
        return 1 / self.input_scale


IMAGENET = PixelConvention()
"""Of networks trained here."""

RAW = PixelConvention(input_scale=1.0, output_scale=1.0, normalisation="none")
"""Levels of 0 to 255, red first, in and out."""
