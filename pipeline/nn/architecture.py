"""What must be known, beside the weights, to rebuild a network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args

from pipeline.nn.pixel_convention import PixelConvention

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
