"""A small change of photographs under which their paintings should stay the same: a shift by a few pixels, and noise.

A network that is trained without it may paint an even area anew for every position and every grain of noise: frames of
a pan flicker, and two crops of one photograph do not match.

Source: Gao et al. 2018, arXiv:1807.01197 (noise resilience), with shifts.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

SHIFT_PX = 4
"""Rows, and columns, by which the changed images are smaller; the network needs a multiple of 4."""
NOISE = 0.05
"""Standard deviation of the noise, in ImageNet-normalised levels: three of 255 levels."""
_BORDER_PX = 8
"""Rows and columns along the edges that are not compared: there, padding shows through."""


@dataclass(frozen=True, kw_only=True)
class SmallChange:
    """One change, the same for all images of a step."""

    down_px: int = 0
    """Rows left out at the top; at most SHIFT_PX."""
    across_px: int = 0
    """Columns left out at the left; at most SHIFT_PX."""
    noise: float = NOISE
    """Standard deviation of the noise, in ImageNet-normalised levels."""
    seed: int = 0
    """Of the noise, which is the same for all images, so that it does not depend on how a batch is split."""

    def applied(self, batch_NCHW: Tensor) -> Tensor:
        """Return the changed images, (N, C, H - SHIFT_PX, W - SHIFT_PX) in the batch's dtype.

        Args:
            batch_NCHW: (N, C, H, W) ImageNet-normalised, any float dtype.
        """
        height_px, width_px = (side_px - SHIFT_PX for side_px in batch_NCHW.shape[2:])
        rows = slice(self.down_px, self.down_px + height_px)
        columns = slice(self.across_px, self.across_px + width_px)
        window_NCHW = batch_NCHW[:, :, rows, columns]
        generator = torch.Generator().manual_seed(self.seed)
        drawn_CHW = torch.randn(window_NCHW.shape[1:], generator=generator).to(batch_NCHW)
        return (window_NCHW + self.noise * drawn_CHW).contiguous(memory_format=torch.channels_last)

    def difference(self, painted_NCHW: Tensor, changed_NCHW: Tensor) -> Tensor:
        """Return the mean squared difference of paintings of the images and of the changed ones; float32 scalar.

        Args:
            painted_NCHW: (N, C, H, W) of the images, any float dtype.
            changed_NCHW: (N, C, H - SHIFT_PX, W - SHIFT_PX) of the changed images.
        """
        height_px, width_px = changed_NCHW.shape[2:]
        inner_rows, inner_columns = (slice(_BORDER_PX, side_px - _BORDER_PX) for side_px in (height_px, width_px))
        shifted_NCHW = painted_NCHW[
            :, :, self.down_px : self.down_px + height_px, self.across_px : self.across_px + width_px
        ]
        differences_NCHW = (shifted_NCHW.float() - changed_NCHW.float())[:, :, inner_rows, inner_columns]
        return differences_NCHW.square().mean()


NO_CHANGE = SmallChange(noise=0.0)
"""The images themselves, without their last rows and columns."""
