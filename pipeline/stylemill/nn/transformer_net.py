"""The feed-forward network that repaints an image.

``TransformerNet`` is the network as it is trained. ``FastNet`` (``fast_net.py``) runs the same weights faster.
"""

from __future__ import annotations

from typing import get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stylemill.nn.architecture import (
    IMAGENET,
    IMAGENET_MEAN,
    IMAGENET_STD,
    Architecture,
    Interpolation,
    Norm,
    Upsampling,
)
from stylemill.nn.norms import AnyNorm, apply_norm, build_norm

__all__ = ["Architecture", "ConvBlock", "ResidualBlock", "TransformerNet", "Upsampling"]

IMAGE_CHANNELS = 3
NUM_RESIDUAL_BLOCKS = 5
SIZE_MULTIPLE_PX = 4
"""Input sides are rounded up to this multiple: the network halves the resolution twice."""

_MAX_LEVEL = 255


class ConvBlock(nn.Module):
    """Optional x2 upsampling, reflection padding, convolution, optional norm and ReLU.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: odd side of the kernel, in pixels; ``kernel_size // 2`` pixels are reflected.
        stride: of the convolution.
        upsample: double the size.
        normalize: append a norm.
        relu: append a ReLU.
        upsampling: method of ``upsample``. A transposed convolution pads with zeros; a sub-pixel convolution returns
            four times the channels at the old size, which become pixels.
        norm: kind of norm.
        separable: a depthwise convolution, then a 1x1 convolution.
        num_styles: of the norm.
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
        upsampling: Upsampling = "nearest",
        norm: Norm = "instance",
        separable: bool = False,
        num_styles: int = 1,
    ) -> None:
        super().__init__()
        self.upsampling: Upsampling | None = upsampling if upsample else None
        self.padding_px = kernel_size // 2
        self.depthwise: nn.Conv2d | None = None
        self.conv: nn.Conv2d | nn.ConvTranspose2d
        if self.upsampling == "transposed":
            self.conv = nn.ConvTranspose2d(
                in_channels, out_channels, kernel_size, 2, padding=self.padding_px, output_padding=1
            )
        elif self.upsampling == "shuffle":
            self.conv = nn.Conv2d(in_channels, 4 * out_channels, kernel_size)
        elif separable:
            self.depthwise = nn.Conv2d(in_channels, in_channels, kernel_size, stride, groups=in_channels, bias=False)
            self.conv = nn.Conv2d(in_channels, out_channels, 1)
        else:
            self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride)
        self.norm: AnyNorm | None = build_norm(norm, out_channels, num_styles) if normalize else None
        self.relu = relu

    @property
    def interpolation(self) -> Interpolation | None:
        """The interpolation before the convolution, if there is one."""
        if self.upsampling in get_args(Interpolation):
            return self.upsampling  # type: ignore[return-value]
        return None

    def forward(self, features_NCHW: Tensor, styles_N: Tensor | None = None) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, H', W') of the same float dtype."""
        out_NCHW = self.convolve(features_NCHW)
        if self.norm is not None:
            out_NCHW = apply_norm(out_NCHW, self.norm, styles_N)
        return out_NCHW.relu_() if self.relu else out_NCHW

    def convolve(self, features_NCHW: Tensor) -> Tensor:
        """Upsample, pad and convolve (N, in_channels, H, W); the norm and the ReLU are left out."""
        if self.upsampling == "transposed":
            transposed_NCHW: Tensor = self.conv(features_NCHW)
            return transposed_NCHW
        interpolation = self.interpolation
        if interpolation is not None:
            align_corners = None if interpolation == "nearest" else False
            features_NCHW = F.interpolate(
                features_NCHW, scale_factor=2, mode=interpolation, align_corners=align_corners
            )
        pad = self.padding_px
        out_NCHW = F.pad(features_NCHW, (pad, pad, pad, pad), mode="reflect")
        if self.depthwise is not None:
            out_NCHW = self.depthwise(out_NCHW)
        out_NCHW = self.conv(out_NCHW)
        return F.pixel_shuffle(out_NCHW, 2) if self.upsampling == "shuffle" else out_NCHW

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw new weights from the global generator.

        A sub-pixel convolution starts as a convolution followed by nearest interpolation.

        Source: Aitken et al. 2017, arXiv:1707.02937.
        """
        for module in (self.depthwise, self.conv, self.norm):
            if module is not None:
                module.reset_parameters()
        if self.upsampling == "shuffle" and self.conv.bias is not None:
            for parameter in (self.conv.weight, self.conv.bias):
                parameter.copy_(parameter[::4].repeat_interleave(4, dim=0))


class ResidualBlock(nn.Module):
    """Two 3x3 blocks, the second without ReLU, plus the input."""

    def __init__(self, channels: int, norm: Norm = "instance", separable: bool = False, num_styles: int = 1) -> None:
        super().__init__()
        self.block1 = ConvBlock(channels, channels, 3, norm=norm, separable=separable, num_styles=num_styles)
        self.block2 = ConvBlock(
            channels, channels, 3, relu=False, norm=norm, separable=separable, num_styles=num_styles
        )

    def forward(self, features_NCHW: Tensor, styles_N: Tensor | None = None) -> Tensor:
        """Map (N, channels, H, W) to the same shape and dtype."""
        return features_NCHW + self.block2(self.block1(features_NCHW, styles_N), styles_N)


class TransformerNet(nn.Module):
    """Johnson's image transformation network with instance norm and resize-convolutions, and its variants.

    Keys of the ``state_dict`` consist of block and part: ``down1.conv.weight``, ``residual3.block2.norm.bias``.

    A network of several styles shares its convolutions among them; each norm has a scale and shift for every style.

    Args:
        architecture: of the network; by default ``Architecture()``.
        num_styles: styles of the network.

    Source: Johnson et al. 2016, arXiv:1603.08155; Ulyanov et al. 2016, arXiv:1607.08022 (instance norm); Dumoulin et
    al. 2017, arXiv:1610.07629 (several styles).
    """

    def __init__(self, architecture: Architecture | None = None, *, num_styles: int = 1) -> None:
        super().__init__()
        self.num_styles = num_styles
        self.architecture = architecture or Architecture()
        narrow, middle, wide = (self.architecture.channels(base) for base in (32, 64, 128))
        upsampling, norm = self.architecture.upsampling, self.architecture.norm
        is_separable = self.architecture.residual == "separable"
        self.stem = ConvBlock(IMAGE_CHANNELS, narrow, 9, norm=norm, num_styles=num_styles)
        self.down1 = ConvBlock(narrow, middle, 3, stride=2, norm=norm, num_styles=num_styles)
        self.down2 = ConvBlock(middle, wide, 3, stride=2, norm=norm, num_styles=num_styles)
        for index in range(1, NUM_RESIDUAL_BLOCKS + 1):
            self.add_module(f"residual{index}", ResidualBlock(wide, norm, is_separable, num_styles))
        self.up1, self.up2 = (
            ConvBlock(before, after, 3, upsample=True, upsampling=upsampling, norm=norm, num_styles=num_styles)
            for before, after in ((wide, middle), (middle, narrow))
        )
        self.head = ConvBlock(narrow, IMAGE_CHANNELS, 9, normalize=False, relu=False)

    def forward(self, batch_NCHW: Tensor, styles_N: Tensor | None = None) -> Tensor:
        """Repaint an ImageNet-normalised batch, converting to and from the network's own pixel convention.

        Args:
            batch_NCHW: (N, 3, H, W) ImageNet-normalised floats, H and W at least 16 (see ``pad_to_network``).
            styles_N: (N,) int64, the style of each image; None in a network of one style.
        Returns:
            (N, 3, H', W') ImageNet-normalised, H and W rounded up to a multiple of 4.
        """
        return self._to_imagenet(self.repaint(self.to_own_pixels(batch_NCHW), styles_N))

    def repaint(self, batch_NCHW: Tensor, styles_N: Tensor | None = None) -> Tensor:
        """Repaint a batch in the network's own channel order and scale (``architecture.pixels``)."""
        for block in self.children():
            batch_NCHW = block(batch_NCHW, styles_N)
        return batch_NCHW.tanh() if self.architecture.output == "tanh" else batch_NCHW

    def to_own_pixels(self, batch_NCHW: Tensor) -> Tensor:
        """Convert (N, 3, H, W) from ImageNet-normalised levels to the network's own order and scale."""
        pixels = self.architecture.pixels
        if pixels == IMAGENET:
            return batch_NCHW
        levels_NCHW = (batch_NCHW * _column(IMAGENET_STD, batch_NCHW) + _column(IMAGENET_MEAN, batch_NCHW)) * _MAX_LEVEL
        scaled_NCHW = levels_NCHW * pixels.input_scale - _column(pixels.mean, batch_NCHW)
        return (scaled_NCHW / _column(pixels.std, batch_NCHW))[:, list(pixels.channels)]

    def _to_imagenet(self, painted_NCHW: Tensor) -> Tensor:
        pixels = self.architecture.pixels
        if pixels == IMAGENET:
            return painted_NCHW
        scaled_NCHW = painted_NCHW[:, list(pixels.channels)] * _column(pixels.std, painted_NCHW)
        levels_NCHW = (scaled_NCHW + _column(pixels.mean, painted_NCHW)) * pixels.output_scale
        unit_NCHW = levels_NCHW / _MAX_LEVEL
        return (unit_NCHW - _column(IMAGENET_MEAN, painted_NCHW)) / _column(IMAGENET_STD, painted_NCHW)

    @torch.no_grad()
    def init_weights(self, seed: int) -> None:
        """Draw new weights that depend only on ``seed``; the global generator is not changed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for module in self.modules():
                if isinstance(module, ConvBlock):
                    module.reset_parameters()


def _column(values: tuple[float, ...], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device).view(-1, 1, 1)
