"""A trained network in the form that runs fastest on this machine."""

from __future__ import annotations

import copy

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.nn.pixels import check_image, deprocess, normalize, pad_to_network
from pipeline.nn.precision import DTYPES, check_device, resolve_precision
from pipeline.nn.transformer_net import TransformerNet

__all__ = ["FastNet", "resolve_precision"]


class FastNet:
    """Repaints 8-bit images with the weights of one network, which it copies and never changes.

    Args:
        net: the trained network.
        precision: ``float32`` or ``bfloat16`` (see ``resolve_precision``).
        device: where to run.
    Raises:
        ConfigError: a precision or device that this machine lacks.
    """

    def __init__(self, net: TransformerNet, *, precision: str, device: str = "cpu") -> None:
        self.precision = resolve_precision(precision, device)
        self.device = check_device(device)
        self.dtype = DTYPES[self.precision]
        self.architecture = net.architecture
        self._net = copy.deepcopy(net).eval().requires_grad_(False)
        self._net.to(device=self.device, dtype=self.dtype).to(memory_format=torch.channels_last)

    def stylize(self, image_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Repaint one image of any size from 1 x 1 px.

        Args:
            image_HWC: (H, W, 3) uint8.
        Returns:
            (H, W, 3) uint8 of the same size: padded by reflection, repainted, cropped; never resized.
        Raises:
            ValueError: not a non-empty (H, W, 3) uint8 array.
        """
        height_px, width_px = image_HWC.shape[:2]
        painted_NHWC = self.stylize_batch(pad_to_network(image_HWC)[None])
        return np.ascontiguousarray(painted_NHWC[0, :height_px, :width_px])

    def stylize_batch(self, images_NHWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Repaint images of one size, each as ``stylize`` would.

        Args:
            images_NHWC: (N, H, W, 3) uint8.
        Returns:
            (N, H, W, 3) uint8.
        Raises:
            ValueError: not a non-empty batch of (H, W, 3) uint8 images.
        """
        for image_HWC in images_NHWC:
            check_image(image_HWC)
        height_px, width_px = images_NHWC.shape[1:3]
        padded_NHWC = torch.from_numpy(np.stack([pad_to_network(image) for image in images_NHWC]))
        painted_NHWC = deprocess(self.forward(normalize(padded_NHWC.to(self.device))))
        return painted_NHWC[:, :height_px, :width_px].cpu().numpy()

    @torch.inference_mode()
    def forward(self, batch_NCHW: Tensor) -> Tensor:
        """Run the network on (N, 3, H, W) normalised float32, sides as ``pad_to_network`` leaves them."""
        batch_NCHW = batch_NCHW.to(self.dtype, memory_format=torch.channels_last)
        out_NCHW: Tensor = self._net(batch_NCHW)
        return out_NCHW.float()
