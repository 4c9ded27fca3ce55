"""What is needed besides the weights to rebuild a network: its architecture and the scale of its pixels."""

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

Interpolation = Literal["nearest", "bilinear", "bicubic"]
Upsampling = Literal["nearest", "bilinear", "bicubic", "transposed", "shuffle"]
Norm = Literal["instance", "batch", "layer", "group"]
Residual = Literal["full", "separable"]
Output = Literal["linear", "tanh"]


@dataclass(frozen=True, kw_only=True)
class PixelConvention:
    """Maps levels of 0 to 255 to the input of a network, and its output to levels.

    By default the input is ``(level / 255 - mean) / std`` and the output level ``(value x std + mean) x 255``. Networks
    trained elsewhere use other scales.

    Raises:
        ValueError: an unknown option, or a scale that is not a positive number.
    """

    input_scale: float = 1 / 255
    """Factor of the levels, before the normalisation."""
    output_scale: float = 255.0
    """Factor of the output, after the normalisation is undone."""
    channel_order: ChannelOrder = "rgb"
    """Order of the channels of input and output."""
    normalisation: Normalisation = "imagenet"
    """ImageNet's mean and standard deviation, removed from the scaled levels and restored on the output, or none."""

    def __post_init__(self) -> None:
        for name in ("input_scale", "output_scale"):
            scale = getattr(self, name)
            if not isinstance(scale, int | float) or not 1 / _LARGEST_SCALE <= scale <= _LARGEST_SCALE:
                raise ValueError(f"{name} must be a positive number, got {scale!r}")
        for name, options in (("channel_order", get_args(ChannelOrder)), ("normalisation", get_args(Normalisation))):
            if getattr(self, name) not in options:
                raise ValueError(f"{name} must be one of {options}, got {getattr(self, name)!r}")

    @property
    def channels(self) -> tuple[int, int, int]:
        """Index among red, green and blue of each of the network's channels; the permutation is its own inverse."""
        return (0, 1, 2) if self.channel_order == "rgb" else (2, 1, 0)

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean that is subtracted from the scaled levels; red, green, blue."""
        return IMAGENET_MEAN if self.normalisation == "imagenet" else (0.0, 0.0, 0.0)

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation by which they are then divided; red, green, blue."""
        return IMAGENET_STD if self.normalisation == "imagenet" else (1.0, 1.0, 1.0)

    @property
    def levels_per_unit(self) -> float:
        """Levels per unit of the scaled input."""
        return 1 / self.input_scale


IMAGENET = PixelConvention()
"""The convention of networks trained by stylemill."""

RAW = PixelConvention(input_scale=1.0, output_scale=1.0, normalisation="none")
"""Levels of 0 to 255, red first, for input and output."""

ALWAYS_WRITTEN = ("width", "upsampling")
"""Fields that every style file contains; others are written only if they differ from the default."""


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Shape and arithmetic of a ``TransformerNet``.

    Raises:
        ValueError: an unknown option, or a width outside (0, 4].
    """

    width: float = 1.0
    """Multiplier of all hidden channel counts (32, 64, 128)."""
    upsampling: Upsampling = "nearest"
    """The two x2 upsampling blocks: an interpolation before the convolution, a transposed convolution, or a
    convolution whose channels become pixels (sub-pixel convolution)."""
    norm: Norm = "instance"
    """Statistics of the norm: of each channel of each image (instance), from training (batch), of all channels of an
    image together (layer), or of groups of channels (group)."""
    residual: Residual = "full"
    """Convolutions of the residual blocks: full 3x3, or depthwise 3x3 and then 1x1 (separable)."""
    output: Output = "linear"
    """Activation after the last convolution."""
    pixels: PixelConvention = field(default_factory=PixelConvention)
    """Scale of input and output."""

    def __post_init__(self) -> None:
        options = {"upsampling": Upsampling, "norm": Norm, "residual": Residual, "output": Output}
        for name, choices in options.items():
            if getattr(self, name) not in get_args(choices):
                raise ValueError(f"{name} must be one of {get_args(choices)}, got {getattr(self, name)!r}")
        if not 0 < self.width <= 4:
            raise ValueError(f"width must be above 0 and at most 4, got {self.width}")

    def channels(self, base: int) -> int:
        """Return the number of channels of a hidden layer that has ``base`` channels at width 1."""
        return max(1, round(base * self.width))

    def to_mapping(self) -> dict[str, Any]:
        """Return the architecture as style files store it: ``ALWAYS_WRITTEN`` and fields that are not default."""
        default, values = asdict(Architecture()), asdict(self)
        return {name: value for name, value in values.items() if name in ALWAYS_WRITTEN or value != default[name]}

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Architecture:
        """Rebuild an architecture from the result of ``to_mapping``.

        Raises:
            ValueError, TypeError: an unknown field or option.
        """
        unknown = values.keys() - {known.name for known in fields(cls)}
        if unknown:
            raise ValueError(f"unknown {', '.join(sorted(unknown))}; written by a newer stylemill")
        pixels = PixelConvention(**values.get("pixels", {}))
        return cls(**{**values, "pixels": pixels})
