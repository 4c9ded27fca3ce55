"""What a loss network is, and what it says about a batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, Self

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class LossFeatures:
    """Activations at the layers that the loss compares."""

    content_NCHW: Tensor
    """(N, C, H, W) at the content layer."""
    style_NCHW: tuple[Tensor, ...]
    """Per style layer (N, C, H, W)."""


class LossNetwork(Protocol):
    """A frozen network whose activations say what an image shows and how it is painted."""

    name: str
    content_energy: float
    """Mean square of the content layer's activations on the calibration images: brings networks to one scale."""

    def features(self, batch_NCHW: Tensor) -> LossFeatures:
        """Return all features of an ImageNet-normalised (N, 3, H, W) batch."""
        ...

    def content(self, batch_NCHW: Tensor) -> Tensor:
        """Return the content layer's activations alone, going no deeper than it takes."""
        ...

    def to(self, dtype: torch.dtype, /) -> Self:
        """Return itself with its parameters in another precision."""
        ...

    def digest(self) -> str:
        """Return the SHA-256 of all parameters: equal digests mean equal losses."""
        ...
