"""On which scale a network takes and gives its pixels.

What must be known, beside the weights, to rebuild a network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args

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


Interpolation = Literal["nearest", "bilinear", "bicubic"]
Upsampling = Literal["nearest", "bilinear", "bicubic", "transposed", "shuffle"]
Norm = Literal["instance", "batch", "layer", "group"]
Residual = Literal["full", "separable"]
Output = Literal["linear", "tanh"]

ALWAYS_WRITTEN = ("width", "upsampling")
"""Fields that stand in every style file; others only where they are not the default, so that files stay the same."""


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Shape and arithmetic of a ``TransformerNet``.

    Raises:
        ValueError: an unknown word, or a width outside (0, 4].
    """

    width: float = 1.0
    """Multiplier of all hidden channel counts (32, 64, 128)."""
    upsampling: Upsampling = "nearest"
    """The two x2 upsampling blocks: an interpolation before the convolution, a transposed convolution, or a
    convolution whose channels become pixels (sub-pixel convolution)."""
    norm: Norm = "instance"
    """What normalises the features: each channel of each image by itself; by statistics gathered in training
    (batch); all channels of an image together (layer); groups of them together (group)."""
    residual: Residual = "full"
    """Convolutions of the residual blocks: full 3x3 ones, or a 3x3 one for each channel and a 1x1 one for their mix."""
    output: Output = "linear"
    """What follows the last convolution."""
    pixels: PixelConvention = field(default_factory=PixelConvention)
    """Scale of what goes into the first convolution and of what comes out at the end."""

    def __post_init__(self) -> None:
        words = {"upsampling": Upsampling, "norm": Norm, "residual": Residual, "output": Output}
        for name, choices in words.items():
            if getattr(self, name) not in get_args(choices):
                raise ValueError(f"{name} must be one of {get_args(choices)}, got {getattr(self, name)!r}")
        if not 0 < self.width <= 4:
            raise ValueError(f"width must be above 0 and at most 4, got {self.width}")

    def channels(self, base: int) -> int:
        """Return the scaled count of a hidden layer that has ``base`` channels at width 1."""
        return max(1, round(base * self.width))

    def to_mapping(self) -> dict[str, Any]:
        """Return what a style file says about the architecture: two fields always, others where they differ."""
        default, values = asdict(Architecture()), asdict(self)
        return {name: value for name, value in values.items() if name in ALWAYS_WRITTEN or value != default[name]}

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Architecture:
        """Read what ``to_mapping`` returned.

        Raises:
            ValueError, TypeError: an unknown field or word.
        """
        unknown = values.keys() - {known.name for known in fields(cls)}
        if unknown:
            raise ValueError(f"unknown {', '.join(sorted(unknown))}; written by a newer stylemill")
        pixels = PixelConvention(**values.get("pixels", {}))
        return cls(**{**values, "pixels": pixels})
