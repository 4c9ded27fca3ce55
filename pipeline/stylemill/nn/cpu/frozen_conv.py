"""3x3 convolutions of training batches by Winograd's algorithm, with gradients for their input alone.

A loss network's weights never change, so its kernels are transformed once, and most of a training step's time without
bfloat16 goes into them. The gradient of such a convolution is one as well: with the kernel turned around and its input
and output channels exchanged.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from stylemill.nn.cpu.compiled import LIBRARY
from stylemill.nn.cpu.thread_team import ThreadTeam
from stylemill.nn.cpu.winograd import MIN_IN_CHANNELS, WinogradConv


def can_be_frozen(layer: nn.Conv2d, batch_NCHW: Tensor) -> bool:
    """Return whether ``FrozenConv`` computes this layer on this batch; it is quicker from a few tiles on."""
    shape = (layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.groups)
    return (
        LIBRARY is not None
        and batch_NCHW.device.type == "cpu"
        and batch_NCHW.dtype == layer.weight.dtype == torch.float32
        and shape == ((3, 3), (1, 1), (1, 1), (1, 1), 1)
        and batch_NCHW.dim() == 4
        and layer.padding_mode == "zeros"
        and not layer.weight.requires_grad
        and min(layer.in_channels, layer.out_channels) >= MIN_IN_CHANNELS
    )


class FrozenConv:
    """A 3x3 convolution with zeros around its input, whose weights have no gradients.

    Args:
        layer: its weights, which must not change.
        threads: run the convolution.
    """

    def __init__(self, layer: nn.Conv2d, threads: ThreadTeam) -> None:
        self._layer, self._threads = layer, threads
        self.forwards = WinogradConv(layer.weight)
        self._backwards: WinogradConv | None = None

    @property
    def backwards(self) -> WinogradConv:
        """The convolution of the gradient, prepared when it is needed first."""
        if self._backwards is None:
            self._backwards = WinogradConv(self._layer.weight.detach().flip(2, 3).transpose(0, 1))
        return self._backwards

    def __call__(self, batch_NCHW: Tensor) -> Tensor:
        """Map (N, I, H, W) float32 to (N, O, H, W), channels-last; the gradient is that of the input alone."""
        result_NCHW: Tensor = _Convolve.apply(batch_NCHW, self)
        return result_NCHW

    def run(self, conv: WinogradConv, batch_NCHW: Tensor, bias_O: Tensor | None) -> Tensor:
        """Convolve a batch, divided by images and groups of rows among the threads of torch."""
        batch_NHWC = batch_NCHW.permute(0, 2, 3, 1).contiguous()
        num_images, height, width, _ = batch_NHWC.shape
        # Not a view: activations are computed in place.
        out_NCHW = torch.empty(num_images, conv.out_channels, height, width, memory_format=torch.channels_last)
        out_NHWC = out_NCHW.permute(0, 2, 3, 1)
        rows = conv.rows_per_group(width)
        groups = -(-height // rows)

        def work(first: int, last: int) -> None:
            while first < last:
                image, group = divmod(first, groups)
                count = min(groups - group, last - first)
                top, bottom = group * rows, min(height, (group + count) * rows)
                part_HWC = out_NHWC[image, top:bottom]
                conv.write(batch_NHWC[image], part_HWC[None], rows=(top, bottom))
                if bias_O is not None:
                    part_HWC += bias_O
                first += count

        self._threads.split(num_images * groups, work)
        return out_NCHW

    def forward(self, batch_NCHW: Tensor) -> Tensor:
        """Convolve without gradients."""
        return self.run(self.forwards, batch_NCHW, self._layer.bias)

    def backward(self, gradient_NCHW: Tensor) -> Tensor:
        """Return the gradient of the input."""
        return self.run(self.backwards, gradient_NCHW, None)


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, batch_NCHW: Tensor, conv: FrozenConv) -> Tensor:
        ctx.conv = conv
        return conv.forward(batch_NCHW)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.conv.backward(gradients[0]), None
