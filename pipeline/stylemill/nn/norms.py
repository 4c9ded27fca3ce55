"""The norms between the convolutions of the network: of one style, or with a scale and shift for each of several."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stylemill.nn.architecture import Norm

GROUPS = 8
"""Number of groups of a group norm; where it does not divide the channels, their greatest common divisor."""

MOMENTUM = 0.1
"""Weight of a batch's statistics in the running statistics."""


def instance_norm(features_NCHW: Tensor, weight: Tensor, bias: Tensor, epsilon: float) -> Tensor:
    """Normalise each channel of each image to zero mean and unit variance, then scale and shift.

    On a CPU, torch's instance norm copies channels-last features to NCHW, and the next convolution copies them back,
    which takes a quarter of a training step. A batch norm of one image is an instance norm and keeps the layout.

    Args:
        features_NCHW: (N, C, H, W) of any float dtype.
        weight: (C,) scale of all images, or (N, C) of each; float32 also for bfloat16 features.
        bias: shift, of the same shape.
        epsilon: added to the variances.
    Returns:
        (N, C, H, W) of the features' dtype and memory layout.

    Source: Ulyanov et al. 2016, arXiv:1607.08022.
    """
    is_channels_last = features_NCHW.is_contiguous(memory_format=torch.channels_last)
    if features_NCHW.device.type == "cpu" and is_channels_last:
        result_NCHW: Tensor = _BatchNormPerImage.apply(features_NCHW, weight, bias, epsilon)
        return result_NCHW
    if weight.dim() == 1:
        return F.instance_norm(features_NCHW, weight=weight, bias=bias, eps=epsilon)
    num, channels, height, width = features_NCHW.shape
    # All images as the channels of one: that is how torch's instance norm itself runs.
    together_1XHW = features_NCHW.reshape(1, num * channels, height, width)
    normal_1XHW = F.batch_norm(together_1XHW, None, None, weight.flatten(), bias.flatten(), True, 0.0, epsilon)
    return normal_1XHW.view(num, channels, height, width)


class _BatchNormPerImage(torch.autograd.Function):
    """A batch norm for each image of the batch, with its derivatives."""

    @staticmethod
    def forward(ctx: Any, features_NCHW: Tensor, weight: Tensor, bias: Tensor, epsilon: float) -> Tensor:
        result_NCHW = torch.empty_like(features_NCHW)
        num, channels = features_NCHW.shape[:2]
        means_NC, deviations_NC = (weight.new_empty(num, channels) for _ in range(2))
        for image in range(num):
            part = slice(image, image + 1)
            weight_C, bias_C = (weight, bias) if weight.dim() == 1 else (weight[image], bias[image])
            torch.ops.aten.native_batch_norm.out(
                features_NCHW[part], weight_C, bias_C, None, None, True, 0.0, epsilon,
                out=result_NCHW[part], save_mean=means_NC[image], save_invstd=deviations_NC[image],
            )  # fmt: skip
        ctx.save_for_backward(features_NCHW, weight, means_NC, deviations_NC)
        ctx.epsilon = epsilon
        return result_NCHW

    @staticmethod
    def backward(ctx: Any, *gradients_NCHW: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        features_NCHW, weight, means_NC, deviations_NC = ctx.saved_tensors
        gradient_NCHW = gradients_NCHW[0].contiguous(memory_format=torch.channels_last)
        wanted_NCHW = torch.empty_like(features_NCHW)
        wanted_weight, wanted_bias = torch.zeros_like(weight), torch.zeros_like(weight)
        for image in range(len(features_NCHW)):
            part = slice(image, image + 1)
            weight_C = weight if weight.dim() == 1 else weight[image]
            wanted, by_weight_C, by_bias_C = torch.ops.aten.native_batch_norm_backward(
                gradient_NCHW[part], features_NCHW[part], weight_C, None, None,
                means_NC[image], deviations_NC[image], True, ctx.epsilon, [True, True, True],
            )  # fmt: skip
            wanted_NCHW[part] = wanted
            mine = ... if weight.dim() == 1 else image
            wanted_weight[mine] += by_weight_C
            wanted_bias[mine] += by_bias_C
        return wanted_NCHW, wanted_weight, wanted_bias, None


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


class StyleNorm(nn.Module):
    """An instance norm with a scale and shift for each style.

    Args:
        num_channels: C.
        num_styles: S.

    Source: Dumoulin et al. 2017, arXiv:1610.07629, conditional instance normalization.
    """

    def __init__(self, num_channels: int, num_styles: int) -> None:
        super().__init__()
        self.eps = 1e-5
        self.weight = nn.Parameter(torch.ones(num_styles, num_channels))
        self.bias = nn.Parameter(torch.zeros(num_styles, num_channels))

    def reset_parameters(self) -> None:
        """Reset all scales to 1 and shifts to 0."""
        nn.init.ones_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, features_NCHW: Tensor, styles_N: Tensor) -> Tensor:
        """Normalise each image in its style, given by its number."""
        return instance_norm(features_NCHW, self.weight[styles_N], self.bias[styles_N], self.eps)


AnyNorm = nn.InstanceNorm2d | BatchNorm | nn.GroupNorm | StyleNorm


def build_norm(kind: Norm, num_channels: int, num_styles: int = 1) -> AnyNorm:
    """Return a new norm over ``num_channels`` channels; raise ValueError unless several styles have instance norms."""
    if num_styles > 1:
        if kind != "instance":
            raise ValueError(f"a network of several styles has instance norms, not {kind}")
        return StyleNorm(num_channels, num_styles)
    if kind == "instance":
        return nn.InstanceNorm2d(num_channels, affine=True)
    if kind == "batch":
        return BatchNorm(num_channels)
    return nn.GroupNorm(1 if kind == "layer" else math.gcd(GROUPS, num_channels), num_channels)


def apply_norm(features_NCHW: Tensor, norm: AnyNorm, styles_N: Tensor | None = None) -> Tensor:
    """Normalise features; keeps shape and dtype, and with instance norms the memory layout.

    Args:
        features_NCHW: (N, C, H, W) of any float dtype.
        norm: as ``build_norm`` returns it.
        styles_N: (N,) int64, the style of each image, for a norm of several styles.
    """
    if isinstance(norm, StyleNorm):
        if styles_N is None:
            raise ValueError("a network of several styles needs the style of each image")
        return norm(features_NCHW, styles_N)
    if isinstance(norm, nn.InstanceNorm2d):
        return instance_norm(features_NCHW, norm.weight, norm.bias, norm.eps)
    normal_NCHW: Tensor = norm(features_NCHW)
    return normal_NCHW
