"""Settings of painting, shared by ``stylize``, ``paint`` and ``StyleModel.paint``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stylemill.config import check_at_least, check_within, parse_size
from stylemill.errors import ConfigError

LEAST_MEMORY_BYTES = 2**30
"""A process uses some 900 MB before its first image (see ``stylemill.nn.memory``)."""


@dataclass(frozen=True, kw_only=True)
class PaintOptions:
    """How an image is painted.

    Raises:
        ConfigError: a value is out of range.
    """

    strength: float = 1.0
    """From 0 (the source) to 1 (the full style)."""

    preserve_color: bool = False
    """Keep the source's colours: combine the luminance of the result with the chroma of the source."""

    max_size_px: int | None = None
    """Longest side of the result in pixels; larger sources are scaled down first."""

    texture_scale: float = 1.0
    """Size of the strokes: 2 runs the network on the source at half its size and scales the result to full size."""

    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the network; auto uses bfloat16 where the hardware supports it natively."""

    device: Literal["cpu", "cuda"] = "cpu"
    """Where the network runs."""

    max_memory: str = "2GiB"
    """Memory that one process that paints may use; larger images are painted in tiles, with the same result."""

    def __post_init__(self) -> None:
        check_within("strength", self.strength, 0.0, 1.0)
        check_within("texture_scale", self.texture_scale, 0.05, 4.0)
        if self.max_size_px is not None:
            check_at_least("max_size_px", self.max_size_px, 1)
        if self.max_memory_bytes < LEAST_MEMORY_BYTES:
            raise ConfigError("max_memory", self.max_memory, "is too little for torch", "give at least 1GiB")

    @property
    def max_memory_bytes(self) -> int:
        """``max_memory`` in bytes."""
        return parse_size("max_memory", self.max_memory)
