"""Conversions between 8-bit images and the tensors of a network: padding, normalisation, rounding."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stylemill.nn.architecture import IMAGENET_MEAN, IMAGENET_STD
from stylemill.nn.transformer_net import IMAGE_CHANNELS, SIZE_MULTIPLE_PX

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "check_image", "deprocess", "normalize", "pad_to_network", "padded_side_px"]

MIN_SIDE_PX = 16
"""Smallest side for which reflection padding of 4 px at full and 1 px at quarter resolution is possible."""


def padded_side_px(side_px: int) -> int:
    """Return the side that the network works on: a multiple of 4, at least 16."""
    return max(MIN_SIDE_PX, -(-side_px // SIZE_MULTIPLE_PX) * SIZE_MULTIPLE_PX)


def check_image(image_HWC: NDArray[np.uint8]) -> None:
    """Raise ValueError unless the array is a non-empty (H, W, 3) uint8 image."""
    if image_HWC.ndim != 3 or image_HWC.shape[2] != IMAGE_CHANNELS or image_HWC.dtype != np.uint8:
        raise ValueError(f"expected an (H, W, 3) uint8 image, got {image_HWC.shape} {image_HWC.dtype}")
    if 0 in image_HWC.shape:
        raise ValueError(f"an image without pixels cannot be repainted: {image_HWC.shape}")


def pad_to_network(image_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Reflect an image at its bottom and right edges up to the next size that the network takes.

    The original is in the top left corner, so ``result[:H, :W]`` undoes the padding. Sides below 16 px are reflected
    repeatedly. An image that needs no padding is returned without a copy.

    Args:
        image_HWC: (H, W, 3) uint8, H and W at least 1.
    Returns:
        (H', W', 3) uint8, each side a multiple of 4 and at least 16.
    Raises:
        ValueError: not a non-empty (H, W, 3) uint8 array.
    """
    check_image(image_HWC)
    height_px, width_px, _ = image_HWC.shape
    bottom_px = padded_side_px(height_px) - height_px
    right_px = padded_side_px(width_px) - width_px
    if not bottom_px and not right_px:
        return image_HWC
    return np.pad(image_HWC, ((0, bottom_px), (0, right_px), (0, 0)), mode="reflect")


def normalize(images_NHWC: Tensor) -> Tensor:
    """Convert pixels to the ImageNet-normalised input of a network.

    Args:
        images_NHWC: (N, H, W, 3) uint8.
    Returns:
        (N, 3, H, W) float32, ``(pixel / 255 - mean) / std`` per channel, contiguous.
    """
    mean = torch.tensor(IMAGENET_MEAN, device=images_NHWC.device).view(3, 1, 1)
    std = torch.tensor(IMAGENET_STD, device=images_NHWC.device).view(3, 1, 1)
    pixels_NCHW = images_NHWC.permute(0, 3, 1, 2).contiguous().to(torch.float32)
    return pixels_NCHW.div_(255).sub_(mean).div_(std)


def deprocess(batch_NCHW: Tensor) -> Tensor:
    """Convert ImageNet-normalised output to pixels: x std + mean, x 255, clamp, round, NHWC.

    Args:
        batch_NCHW: (N, 3, H, W) of any float dtype; computed in float32.
    Returns:
        (N, H, W, 3) uint8, contiguous.
    """
    mean = torch.tensor(IMAGENET_MEAN, device=batch_NCHW.device).view(3, 1, 1)
    std = torch.tensor(IMAGENET_STD, device=batch_NCHW.device).view(3, 1, 1)
    pixels_NCHW = batch_NCHW.to(torch.float32).mul(std).add_(mean).mul_(255)
    return pixels_NCHW.clamp_(0, 255).round_().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
