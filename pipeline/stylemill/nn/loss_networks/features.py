"""The interface of loss networks, and the fixed images on which they are calibrated."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
import torch
from torch import Tensor

from stylemill.nn.loss_weights import LayerWeights

NUM_IMAGES = 4
SIZE_PX = 128
_SEED = 20160523
_FORMULA = b"content without contrast"
"""Part of digests; another one when the same features begin to give another loss."""


@dataclass(frozen=True, kw_only=True)
class LossFeatures:
    """Activations at the layers that the loss compares, by the layer's name, from fine to coarse."""

    content: dict[str, Tensor]
    """(N, C, H, W) per content layer."""
    style: dict[str, Tensor]
    """(N, C, H, W) per style layer; small pictures lack the coarsest layers of the pyramid."""

    @classmethod
    def of(cls, found: dict[str, Tensor], layers: LayerWeights) -> Self:
        """Return the activations that were found, sorted into the layers of content and of style."""
        return cls(
            content={name: layer for name, layer in found.items() if name in layers.content},
            style={name: layer for name, layer in found.items() if name in layers.style},
        )


class LossNetwork(Protocol):
    """A frozen network whose activations describe the content and the style of an image."""

    name: str
    layers: LayerWeights
    """The layers that the loss compares."""
    content_energies: dict[str, float]
    """Mean square of each content layer's activations on the calibration images; scales the content loss."""

    def features(self, batch_NCHW: Tensor) -> LossFeatures:
        """Return all features of an ImageNet-normalised (N, 3, H, W) batch."""
        ...

    def content(self, batch_NCHW: Tensor) -> dict[str, Tensor]:
        """Return only the content layers' activations, without running deeper layers."""
        ...

    def to(self, dtype: torch.dtype, /) -> Self:
        """Convert the parameters to another precision and return the network."""
        ...

    def digest(self) -> str:
        """Return the SHA-256 of all parameters and of the layers' weights: equal digests mean equal losses."""
        ...


def measured_energies(network: LossNetwork) -> dict[str, float]:
    """Return the mean square of each content layer's activations on the calibration images."""
    images_NCHW = torch.from_numpy(calibration_images()).float()
    return {name: float(layer.square().mean()) for name, layer in network.content(images_NCHW).items()}


def network_digest(tensors: Iterable[Tensor], layers: LayerWeights) -> str:
    """Return the SHA-256 of parameters, as float32, and of the layers' weights."""
    sha256 = hashlib.sha256(_FORMULA)
    for tensor in tensors:
        sha256.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
    for weights in (layers.content, layers.style):
        sha256.update(repr(sorted(weights.items())).encode())
    return sha256.hexdigest()


def calibration_images(num_images: int = NUM_IMAGES, size_px: int = SIZE_PX) -> np.ndarray:
    """Draw images with the statistics of photographs: 1/f spectrum, correlated colours, a few hard edges.

    No file or download is needed, and numpy guarantees the stream of the legacy generator, so every machine draws the
    same images.

    Returns:
        (num_images, 3, size_px, size_px) float64, ImageNet-normalised: zero mean and unit variance.
    """
    generator = np.random.RandomState(_SEED)
    frequencies = np.hypot(np.fft.fftfreq(size_px)[:, None], np.fft.rfftfreq(size_px)[None, :])
    frequencies[0, 0] = 1.0 / size_px
    images_NCHW = np.empty((num_images, 3, size_px, size_px))
    for image_CHW in images_NCHW:
        luminance = _pink_noise(generator, frequencies, size_px)
        for channel_HW in image_CHW:
            channel_HW[:] = luminance + 0.5 * _pink_noise(generator, frequencies, size_px)
        for _ in range(6):
            top, left = generator.randint(0, size_px - 16, 2)
            height, width = generator.randint(8, size_px // 2, 2)
            image_CHW[:, top : top + height, left : left + width] += generator.standard_normal(3)[:, None, None]
    images_NCHW -= images_NCHW.mean(axis=(0, 2, 3), keepdims=True)
    return images_NCHW / images_NCHW.std(axis=(0, 2, 3), keepdims=True)


def _pink_noise(generator: np.random.RandomState, frequencies: np.ndarray, size_px: int) -> np.ndarray:
    """Return (size_px, size_px) noise whose amplitude falls as 1/f, of unit variance."""
    spectrum = np.fft.rfft2(generator.standard_normal((size_px, size_px))) / frequencies
    noise_HW = np.fft.irfft2(spectrum, s=(size_px, size_px))
    return noise_HW / noise_HW.std()
