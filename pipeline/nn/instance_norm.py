"""Instance norm that leaves channels-last memory as it is."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def instance_norm(features_NCHW: Tensor, norm: nn.InstanceNorm2d) -> Tensor:
    """Normalise each channel of each image to zero mean and unit variance, then scale and shift.

    torch's own copies channels-last features to NCHW, and the next convolution copies them back: a quarter of a
    training step on a CPU. A batch norm of one image is an instance norm, and it takes channels-last features as they
    are.

    Args:
        features_NCHW: (N, C, H, W) of any float dtype.
        norm: affine, with parameters in float32 also for reduced features.
    Returns:
        (N, C, H, W) of the features' dtype and memory layout.

    Source: Ulyanov et al. 2016, arXiv:1607.08022.
    """
    is_channels_last = features_NCHW.is_contiguous(memory_format=torch.channels_last)
    if features_NCHW.device.type != "cpu" or not is_channels_last:
        return F.instance_norm(features_NCHW, weight=norm.weight, bias=norm.bias, eps=norm.eps)
    result_NCHW: Tensor = _PerImage.apply(features_NCHW, norm.weight, norm.bias, norm.eps)
    return result_NCHW


class _PerImage(torch.autograd.Function):
    """A batch norm for each image."""

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
