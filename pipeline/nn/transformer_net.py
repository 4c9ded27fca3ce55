"""The feed-forward network that repaints an image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.nn.instance_norm import instance_norm

Upsampling = Literal["nearest", "bilinear", "bicubic"]

IMAGE_CHANNELS = 3
NUM_RESIDUAL_BLOCKS = 5
SIZE_MULTIPLE_PX = 4
"""Input sides are rounded up to this multiple: the network halves the resolution twice."""


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """What must be known, beside the weights, to rebuild a network.

    Raises:
        ValueError: an unknown upsampling, or a width outside (0, 4].
    """

    width: float = 1.0
    """Multiplier of all hidden channel counts (32, 64, 128)."""
    upsampling: Upsampling = "nearest"
    """Interpolation of the two x2 upsampling blocks."""

    def __post_init__(self) -> None:
        if self.upsampling not in get_args(Upsampling):
            raise ValueError(f"upsampling must be one of {get_args(Upsampling)}, got {self.upsampling!r}")
        if not 0 < self.width <= 4:
            raise ValueError(f"width must be above 0 and at most 4, got {self.width}")

    def channels(self, base: int) -> int:
        """Return the scaled count of a hidden layer that has ``base`` channels at width 1."""
        return max(1, round(base * self.width))


class ConvBlock(nn.Module):
    """Optional x2 interpolation, reflection padding, convolution, optional instance norm and ReLU.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: odd side of the kernel, in pixels; ``kernel_size // 2`` pixels are reflected.
        stride: of the convolution.
        upsample: interpolate to twice the size before the convolution.
        normalize: append an affine InstanceNorm2d.
        relu: append a ReLU.
        interpolation: how ``upsample`` interpolates.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        upsample: bool = False,
        normalize: bool = True,
        relu: bool = True,
        interpolation: Upsampling = "nearest",
    ) -> None:
        super().__init__()
        self.interpolation: Upsampling | None = interpolation if upsample else None
        self.padding_px = kernel_size // 2
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride)
        self.norm = nn.InstanceNorm2d(out_channels, affine=True) if normalize else None
        self.relu = relu

    def forward(self, features_NCHW: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, H', W') of the same float dtype."""
        if self.interpolation is not None:
            align_corners = None if self.interpolation == "nearest" else False
            features_NCHW = F.interpolate(
                features_NCHW, scale_factor=2, mode=self.interpolation, align_corners=align_corners
            )
        pad = self.padding_px
        out_NCHW = self.conv(F.pad(features_NCHW, (pad, pad, pad, pad), mode="reflect"))
        if self.norm is not None:
            out_NCHW = instance_norm(out_NCHW, self.norm)
        return out_NCHW.relu_() if self.relu else out_NCHW


class ResidualBlock(nn.Module):
    """Two 3x3 blocks, the second without ReLU, plus the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block1 = ConvBlock(channels, channels, 3)
        self.block2 = ConvBlock(channels, channels, 3, relu=False)

    def forward(self, features_NCHW: Tensor) -> Tensor:
        """Map (N, channels, H, W) to the same shape and dtype."""
        return features_NCHW + self.block2(self.block1(features_NCHW))


class TransformerNet(nn.Module):
    """Johnson's image transformation network with instance norm and resize-convolutions.

    Keys of the ``state_dict`` name the block and its part: ``down1.conv.weight``,
    ``residual3.block2.norm.bias``.

    Source: Johnson et al. 2016, arXiv:1603.08155; Ulyanov et al. 2016, arXiv:1607.08022 (instance norm).
    """

    def __init__(self, architecture: Architecture | None = None) -> None:
        super().__init__()
        self.architecture = architecture or Architecture()
        narrow, middle, wide = (self.architecture.channels(base) for base in (32, 64, 128))
        interpolation = self.architecture.upsampling
        self.stem = ConvBlock(IMAGE_CHANNELS, narrow, 9)
        self.down1 = ConvBlock(narrow, middle, 3, stride=2)
        self.down2 = ConvBlock(middle, wide, 3, stride=2)
        for index in range(1, NUM_RESIDUAL_BLOCKS + 1):
            self.add_module(f"residual{index}", ResidualBlock(wide))
        self.up1 = ConvBlock(wide, middle, 3, upsample=True, interpolation=interpolation)
        self.up2 = ConvBlock(middle, narrow, 3, upsample=True, interpolation=interpolation)
        self.head = ConvBlock(narrow, IMAGE_CHANNELS, 9, normalize=False, relu=False)

    def forward(self, batch_NCHW: Tensor) -> Tensor:
        """Repaint a batch.

        Args:
            batch_NCHW: (N, 3, H, W) ImageNet-normalised floats, H and W at least 16 (see ``pad_to_network``).
        Returns:
            (N, 3, H', W') ImageNet-normalised, H and W rounded up to a multiple of 4.
        """
        for block in self.children():
            batch_NCHW = block(batch_NCHW)
        return batch_NCHW

    @torch.no_grad()
    def init_weights(self, seed: int) -> None:
        """Draw fresh weights that depend on ``seed`` alone, whatever the global generator holds."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for module in self.modules():
                if isinstance(module, nn.Conv2d | nn.InstanceNorm2d):
                    module.reset_parameters()
