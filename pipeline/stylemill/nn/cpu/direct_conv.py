"""The convolution of a layer by oneDNN: one kernel, or one for even and one for odd output rows."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from stylemill.nn.cpu.packed_conv import PackedConv, SeparableConv


@dataclass(frozen=True)
class Phase:
    """One kernel of a layer and the input rows that it reads."""

    conv: PackedConv | SeparableConv
    first_row: int
    """Input row at the kernel's top, relative to ``stride * phase row``."""


@dataclass(frozen=True)
class DirectConv:
    """A convolution in phases.

    Most layers have one phase. A folded x2 upsampling has two, for even and odd output rows; each returns rows of
    doubled width. A "phase row" is a row of a phase's output: output row ``scale x phase row + phase``.
    """

    phases: tuple[Phase, ...]

    @property
    def stride(self) -> int:
        """Vertical stride; the horizontal one is larger where columns are folded into channels."""
        return self.phases[0].conv.stride[0]

    @property
    def scale(self) -> int:
        """Output rows per phase row: 2 for a folded upsampling, else 1."""
        return len(self.phases)

    @property
    def in_channels(self) -> int:
        """Channels of the input."""
        return self.phases[0].conv.in_channels

    @property
    def out_channels(self) -> int:
        """Channels of the output."""
        return self.phases[0].conv.out_channels // self.scale

    @property
    def first_row(self) -> int:
        """First input row that phase row 0 reads."""
        return min(phase.first_row for phase in self.phases)

    @property
    def reach(self) -> int:
        """Input rows that one phase row reads."""
        return max(phase.first_row + phase.conv.kernel_height for phase in self.phases) - self.first_row

    def rows_per_group(self, width: int) -> int:
        """Return the phase rows that must be computed together: any number can be."""
        return 1

    def describe(self) -> list[str]:
        """Return a line for each kernel."""
        return [phase.conv.describe() for phase in self.phases]

    def __call__(self, window_NCHW: Tensor) -> list[Tensor]:
        """Convolve without padding.

        Args:
            window_NCHW: (1, I, (n - 1) stride + reach, W + 2p) channels-last, the input of n phase rows.
        Returns:
            (1, C, n, W') channels-last for each phase.
        """
        span = window_NCHW.shape[2] - self.reach
        raws = []
        for phase in self.phases:
            top = phase.first_row - self.first_row
            rows_NCHW = window_NCHW[:, :, top : top + span + phase.conv.kernel_height]
            raws.append(_unfold_columns(phase.conv(rows_NCHW), self.scale))
        return raws


def _unfold_columns(folded_NCHW: Tensor, scale: int) -> Tensor:
    """View (1, scale C, h, w) channels-last as (1, C, h, scale w), in the same memory."""
    if scale == 1:
        return folded_NCHW
    _, channels, height, width = folded_NCHW.shape
    rows_NHWC = folded_NCHW.permute(0, 2, 3, 1).view(1, height, width * scale, channels // scale)
    return rows_NHWC.permute(0, 3, 1, 2)
