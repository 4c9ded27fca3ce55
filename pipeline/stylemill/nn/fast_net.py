"""``FastNet``: a trained network in the form that runs fastest on this machine.

On a CPU it runs ``cpu/whole_image.py``, on a GPU ``gpu.py``; images that do not fit into memory go through ``tiled/``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from stylemill.nn.cpu.channel_stats import ChannelStatistics
from stylemill.nn.cpu.layers import prepare_layers, stays_flat
from stylemill.nn.cpu.thread_team import ThreadTeam
from stylemill.nn.cpu.whole_image import WholeImagePass
from stylemill.nn.pixels import check_image
from stylemill.nn.precision import DTYPES, check_device, resolve_precision
from stylemill.nn.transformer_net import TransformerNet

if TYPE_CHECKING:
    from stylemill.nn.gpu import CudaPass

_FLAT_SIDE_PX = 8
"""Side of the image that is painted in place of a larger one of the same single colour."""


class FlatImagePainter:
    """Paints images of one colour in float32, without Winograd's algorithm.

    On a constant map the variance is zero, and an instance norm returns its bias. Any difference of rounding between
    its pixels would be amplified by the norms to a pattern over the whole picture: that of Winograd's tiles, or, in
    bfloat16, of the kernels for even and odd columns of a folded upsampling.

    Args:
        net: the network; its weights are copied.
    """

    def __init__(self, net: TransformerNet) -> None:
        self._exact_pass = WholeImagePass(prepare_layers(net, torch.float32, winograd=False), ThreadTeam(1))

    def paint(self, image_HWC: NDArray[np.uint8], dtype: type) -> NDArray | None:
        """Return the painted image, or None if the image has more than one colour.

        Args:
            image_HWC: (H, W, 3) uint8.
            dtype: ``uint8`` for rounded and clamped values, ``float32`` for the values of the network.
        Returns:
            (H, W, 3) of that dtype, all of one colour.
        """
        first_C = image_HWC[0, 0]
        if (image_HWC[0] != first_C).any() or (image_HWC != first_C).any():
            return None
        painted_HWC: NDArray = np.empty((_FLAT_SIDE_PX, _FLAT_SIDE_PX, 3), dtype)
        self._exact_pass.run(np.full((_FLAT_SIDE_PX, _FLAT_SIDE_PX, 3), first_C), painted_HWC)
        return np.full(image_HWC.shape, painted_HWC[_FLAT_SIDE_PX // 2, _FLAT_SIDE_PX // 2])


class PendingBatch(Protocol):
    """A batch that may still be running."""

    def result(self) -> NDArray[np.uint8]:
        """Wait, and return (N, H, W, 3) uint8."""
        ...


class FinishedBatch:
    """A batch that is painted; its ``result`` returns at once."""

    def __init__(self, painted_NHWC: NDArray[np.uint8]) -> None:
        self._painted_NHWC = painted_NHWC

    def result(self) -> NDArray[np.uint8]:
        """Return (N, H, W, 3) uint8."""
        return self._painted_NHWC


class FastNet:
    """Repaints 8-bit images with a copy of the weights of one network.

    On a CPU the bytes of the result depend only on the image, the weights and the kind of machine, not on the
    number of threads or the rest of the batch.

    Args:
        net: the trained network.
        precision: ``auto``, ``float32`` or ``bfloat16`` (see ``resolve_precision``).
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        num_threads: threads that share one image on a CPU; None takes torch's current setting.
        compile_network: on a GPU, fuse with ``torch.compile``, which pays off in long runs over few shapes.
    Raises:
        ConfigError: this machine does not have the precision or the device.
    """

    def __init__(
        self,
        net: TransformerNet,
        *,
        precision: str,
        device: str = "cpu",
        num_threads: int | None = None,
        compile_network: bool = False,
    ) -> None:
        self.precision = resolve_precision(precision, device)
        self.device = check_device(device)
        self.architecture = net.architecture
        dtype = DTYPES[self.precision]
        self.threads = ThreadTeam(num_threads or torch.get_num_threads())
        # Also with a GPU: images that do not fit its memory are painted on the CPU in bands.
        self.layers = prepare_layers(net, dtype)
        self._whole_image = WholeImagePass(self.layers, self.threads)
        self.flat_painter = FlatImagePainter(net) if stays_flat(net.architecture) else None
        self.gpu: CudaPass | None = None
        if self.device.type == "cuda":
            from stylemill.nn.gpu import CudaPass

            self.gpu = CudaPass(net, dtype, self.device, compile_network=compile_network)

    def stylize(self, image_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Repaint one image of any size from 1 x 1 px.

        Args:
            image_HWC: (H, W, 3) uint8.
        Returns:
            (H, W, 3) uint8 of the same size: padded by reflection, repainted, cropped; never resized.
        Raises:
            ValueError: not a non-empty (H, W, 3) uint8 array.
        """
        if self.gpu is not None:
            return self.stylize_batch(image_HWC[None])[0]
        painted_HWC: NDArray[np.uint8] = self._run(image_HWC, np.uint8)
        return painted_HWC

    def values(self, image_HWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Repaint one image and return it before rounding and clamping.

        Args:
            image_HWC: (H, W, 3) uint8.
        Returns:
            (H, W, 3) float32 on the scale of 0 to 255.
        Raises:
            ValueError: not a non-empty (H, W, 3) uint8 array.
        """
        if self.gpu is not None:
            check_image(image_HWC)
            return self.gpu.values(image_HWC)
        values_HWC: NDArray[np.float32] = self._run(image_HWC, np.float32)
        return values_HWC

    def stylize_batch(self, images_NHWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Repaint images of one size, each as by ``stylize``.

        Args:
            images_NHWC: (N, H, W, 3) uint8.
        Returns:
            (N, H, W, 3) uint8.
        Raises:
            ValueError: not a non-empty batch of (H, W, 3) uint8 images.
        """
        if self.gpu is not None:
            return self.submit_batch(images_NHWC).result()
        return np.stack([self.stylize(image_HWC) for image_HWC in images_NHWC])

    def submit_batch(self, images_NHWC: NDArray[np.uint8]) -> PendingBatch:
        """Start a batch and return at once, so that reading and encoding overlap with the GPU.

        On a CPU, where nothing would overlap, the batch is painted before this method returns.

        Args:
            images_NHWC: (N, H, W, 3) uint8.
        Returns:
            an object whose ``result()`` returns the painted batch.
        Raises:
            ValueError: not a batch of (H, W, 3) uint8 images.
            torch.OutOfMemoryError: the batch is too large for the GPU.
        """
        if self.gpu is None:
            return FinishedBatch(self.stylize_batch(images_NHWC))
        for image_HWC in images_NHWC:
            check_image(image_HWC)
        return self.gpu.submit(images_NHWC)

    def statistics(self, image_HWC: NDArray[np.uint8]) -> list[ChannelStatistics]:
        """Return mean and variance of every layer with a norm on one image, computed on the CPU."""
        check_image(image_HWC)
        return self._whole_image.run(image_HWC, np.empty(image_HWC.shape, np.uint8))

    def _run(self, image_HWC: NDArray[np.uint8], dtype: type) -> NDArray:
        check_image(image_HWC)
        if self.flat_painter and (flat_HWC := self.flat_painter.paint(image_HWC, dtype)) is not None:
            return flat_HWC
        painted_HWC: NDArray = np.empty(image_HWC.shape, dtype)
        self._whole_image.run(image_HWC, painted_HWC)
        return painted_HWC
