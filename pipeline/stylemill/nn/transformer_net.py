"""The feed-forward network that repaints an image, and the norms between its convolutions.

``TransformerNet`` is the network as it is trained. ``FastNet`` (``fast_net.py``) runs the same weights faster.
"""

from __future__ import annotations

import math
from typing import Any, get_args

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

__all__ = ["Architecture", "ConvBlock", "ResidualBlock", "TransformerNet", "Upsampling"]

IMAGE_CHANNELS = 3
NUM_RESIDUAL_BLOCKS = 5
SIZE_MULTIPLE_PX = 4
"""Input sides are rounded up to this multiple: the network halves the resolution twice."""

_MAX_LEVEL = 255

GROUPS = 8
"""Number of groups of a group norm; where it does not divide the channels, their greatest common divisor."""

MOMENTUM = 0.1
"""Weight of a batch's statistics in the running statistics."""


def instance_norm(features_NCHW: Tensor, norm: nn.InstanceNorm2d) -> Tensor:
    """Normalise each channel of each image to zero mean and unit variance, then scale and shift.

    On a CPU, torch's instance norm copies channels-last features to NCHW, and the next convolution copies them back,
    which takes a quarter of a training step. A batch norm of one image is an instance norm and keeps the layout.

    Args:
        features_NCHW: (N, C, H, W) of any float dtype.
        norm: affine, with float32 parameters also for bfloat16 features.
    Returns:
        (N, C, H, W) of the features' dtype and memory layout.

    Source: Ulyanov et al. 2016, arXiv:1607.08022.
    """
    is_channels_last = features_NCHW.is_contiguous(memory_format=torch.channels_last)
    if features_NCHW.device.type != "cpu" or not is_channels_last:
        return F.instance_norm(features_NCHW, weight=norm.weight, bias=norm.bias, eps=norm.eps)
    result_NCHW: Tensor = _BatchNormPerImage.apply(features_NCHW, norm.weight, norm.bias, norm.eps)
    return result_NCHW


class _BatchNormPerImage(torch.autograd.Function):
    """A batch norm for each image of the batch, with its derivatives."""

    @staticmethod
    def forward(ctx: Any, features_NCHW: Tensor, weight_C: Tensor, bias_C: Tensor, epsilon: float) -> Tensor:
        result_NCHW = torch.empty_like(features_NCHW)
        num, channels = features_NCHW.shape[:2]
        means_NC, deviations_NC = (weight_C.new_empty(num, channels) for _ in range(2))
        for image in range(num):
            part = slice(image, image + 1)
            torch.ops.aten.native_batch_norm.out(
                features_NCHW[part], weight_C, bias_C, None, None, True, 0.0, epsilon,
                out=result_NCHW[part], save_mean=means_NC[image], save_invstd=deviations_NC[image],
            )  # fmt: skip
        ctx.save_for_backward(features_NCHW, weight_C, means_NC, deviations_NC)
        ctx.epsilon = epsilon
        return result_NCHW

    @staticmethod
    def backward(ctx: Any, *gradients_NCHW: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        features_NCHW, weight_C, means_NC, deviations_NC = ctx.saved_tensors
        gradient_NCHW = gradients_NCHW[0].contiguous(memory_format=torch.channels_last)
        wanted_NCHW = torch.empty_like(features_NCHW)
        wanted_weight_C, wanted_bias_C = torch.zeros_like(weight_C), torch.zeros_like(weight_C)
        for image in range(len(features_NCHW)):
            part = slice(image, image + 1)
            wanted, by_weight_C, by_bias_C = torch.ops.aten.native_batch_norm_backward(
                gradient_NCHW[part], features_NCHW[part], weight_C, None, None,
                means_NC[image], deviations_NC[image], True, ctx.epsilon, [True, True, True],
            )  # fmt: skip
            wanted_NCHW[part] = wanted
            wanted_weight_C += by_weight_C
            wanted_bias_C += by_bias_C
        return wanted_NCHW, wanted_weight_C, wanted_bias_C, None


class BatchNorm(nn.Module):
    """A batch norm without a batch counter, whose running statistics ignore batches that are not finite.

    Args:
        num_channels: C.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.eps, self.momentum = 1e-5, MOMENTUM
        self.weight, self.bias = nn.Parameter(torch.ones(num_channels)), nn.Parameter(torch.zeros(num_channels))
        self.register_buffer("running_mean", torch.zeros(num_channels))
        self.register_buffer("running_var", torch.ones(num_channels))

    def reset_parameters(self) -> None:
        """Reset scale to 1, shift to 0, and the running statistics."""
        for ones in (self.weight, self.running_var):
            nn.init.ones_(ones)
        for zeros in (self.bias, self.running_mean):
            nn.init.zeros_(zeros)

    def forward(self, features_NCHW: Tensor) -> Tensor:
        """Normalise with the statistics of the batch in training, with the running statistics otherwise."""
        mean_C, variance_C = self.running_mean, self.running_var
        if self.training:
            mean_C, variance_C = mean_C.clone(), variance_C.clone()
        normal_NCHW = F.batch_norm(
            features_NCHW, mean_C, variance_C, self.weight, self.bias, self.training, self.momentum, self.eps
        )
        if self.training and bool(torch.isfinite(mean_C).all() & torch.isfinite(variance_C).all()):
            self.running_mean.copy_(mean_C)
            self.running_var.copy_(variance_C)
        return normal_NCHW


AnyNorm = nn.InstanceNorm2d | BatchNorm | nn.GroupNorm


def build_norm(kind: Norm, num_channels: int) -> AnyNorm:
    """Return a new norm over ``num_channels`` channels."""
    if kind == "instance":
        return nn.InstanceNorm2d(num_channels, affine=True)
    if kind == "batch":
        return BatchNorm(num_channels)
    return nn.GroupNorm(1 if kind == "layer" else math.gcd(GROUPS, num_channels), num_channels)


def apply_norm(features_NCHW: Tensor, norm: AnyNorm) -> Tensor:
    """Normalise (N, C, H, W) of any float dtype; keeps shape and dtype, and with instance norm the memory layout."""
    if isinstance(norm, nn.InstanceNorm2d):
        return instance_norm(features_NCHW, norm)
    normal_NCHW: Tensor = norm(features_NCHW)
    return normal_NCHW


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
        self.norm: AnyNorm | None = build_norm(norm, out_channels) if normalize else None
        self.relu = relu

    @property
    def interpolation(self) -> Interpolation | None:
        """The interpolation before the convolution, if there is one."""
        if self.upsampling in get_args(Interpolation):
            return self.upsampling  # type: ignore[return-value]
        return None

    def forward(self, features_NCHW: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, H', W') of the same float dtype."""
        out_NCHW = self._convolve(features_NCHW)
        if self.norm is not None:
            out_NCHW = apply_norm(out_NCHW, self.norm)
        return out_NCHW.relu_() if self.relu else out_NCHW

    def _convolve(self, features_NCHW: Tensor) -> Tensor:
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

    def __init__(self, channels: int, norm: Norm = "instance", separable: bool = False) -> None:
        super().__init__()
        self.block1 = ConvBlock(channels, channels, 3, norm=norm, separable=separable)
        self.block2 = ConvBlock(channels, channels, 3, relu=False, norm=norm, separable=separable)

    def forward(self, features_NCHW: Tensor) -> Tensor:
        """Map (N, channels, H, W) to the same shape and dtype."""
        return features_NCHW + self.block2(self.block1(features_NCHW))


class TransformerNet(nn.Module):
    """Johnson's image transformation network with instance norm and resize-convolutions, and its variants.

    Keys of the ``state_dict`` consist of block and part: ``down1.conv.weight``, ``residual3.block2.norm.bias``.

    Source: Johnson et al. 2016, arXiv:1603.08155; Ulyanov et al. 2016, arXiv:1607.08022 (instance norm).
    """

    def __init__(self, architecture: Architecture | None = None) -> None:
        super().__init__()
        self.architecture = architecture or Architecture()
        narrow, middle, wide = (self.architecture.channels(base) for base in (32, 64, 128))
        upsampling, norm = self.architecture.upsampling, self.architecture.norm
        self.stem = ConvBlock(IMAGE_CHANNELS, narrow, 9, norm=norm)
        self.down1 = ConvBlock(narrow, middle, 3, stride=2, norm=norm)
        self.down2 = ConvBlock(middle, wide, 3, stride=2, norm=norm)
        for index in range(1, NUM_RESIDUAL_BLOCKS + 1):
            self.add_module(f"residual{index}", ResidualBlock(wide, norm, self.architecture.residual == "separable"))
        self.up1 = ConvBlock(wide, middle, 3, upsample=True, upsampling=upsampling, norm=norm)
        self.up2 = ConvBlock(middle, narrow, 3, upsample=True, upsampling=upsampling, norm=norm)
        self.head = ConvBlock(narrow, IMAGE_CHANNELS, 9, normalize=False, relu=False)

    def forward(self, batch_NCHW: Tensor) -> Tensor:
        """Repaint an ImageNet-normalised batch, converting to and from the network's own pixel convention.

        Args:
            batch_NCHW: (N, 3, H, W) ImageNet-normalised floats, H and W at least 16 (see ``pad_to_network``).
        Returns:
            (N, 3, H', W') ImageNet-normalised, H and W rounded up to a multiple of 4.
        """
        return self._to_imagenet(self.repaint(self._from_imagenet(batch_NCHW)))

    def repaint(self, batch_NCHW: Tensor) -> Tensor:
        """Repaint a batch in the network's own channel order and scale (``architecture.pixels``)."""
        for block in self.children():
            batch_NCHW = block(batch_NCHW)
        return batch_NCHW.tanh() if self.architecture.output == "tanh" else batch_NCHW

    def _from_imagenet(self, batch_NCHW: Tensor) -> Tensor:
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
