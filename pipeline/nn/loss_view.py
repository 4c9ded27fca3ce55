"""How a loss network looks at a batch in one step: a window of it, at a scale of its own."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

LEAST_SIDE_PX = 16
"""No view is smaller, whatever its scale: loss networks need so much."""


@dataclass(frozen=True, kw_only=True)
class LossView:
    """A window and a scale, the same for results and content.

    A loss that always looks at the same pixels at the same size is easily satisfied by what nobody would paint:
    lattices with the periods that upsampling repeats, to which it happens to be half blind, and a dark rim that makes
    up for missing colours. From view to view the periods change and the rim comes and goes, so neither pays.

    Source: expectation over transformations as in Athalye et al. 2018, arXiv:1707.07397; random scales as in
    Olah et al. 2017, doi:10.23915/distill.00007.
    """

    scale: float = 1.0
    """Sides of the view over those of the window; at most 1."""
    margin_px: int = 0
    """Rows, and columns, that the window leaves out, on both sides together."""
    top_px: int = 0
    left_px: int = 0
    """Of them, those above and those to the left."""

    def of(self, batch_NCHW: Tensor) -> Tensor:
        """Return the view, (N, C, h, w) in the batch's dtype, smoothed where it is smaller than the window.

        Args:
            batch_NCHW: (N, C, H, W) of any float dtype, sides longer than the margin.
        """
        if self == WHOLE:
            return batch_NCHW  # the gradient of a slice would lose the batch's memory format
        height_px, width_px = (side_px - self.margin_px for side_px in batch_NCHW.shape[2:])
        window_NCHW = batch_NCHW[:, :, self.top_px : self.top_px + height_px, self.left_px : self.left_px + width_px]
        size_px = [max(min(side_px, LEAST_SIDE_PX), round(side_px * self.scale)) for side_px in (height_px, width_px)]
        if size_px == [height_px, width_px]:
            return window_NCHW
        view_NCHW = F.interpolate(window_NCHW.float(), size=size_px, mode="bilinear", antialias=True)
        return view_NCHW.to(batch_NCHW.dtype)


WHOLE = LossView()
"""The batch as it is."""
