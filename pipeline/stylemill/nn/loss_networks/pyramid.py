"""``pyramid``: a loss network of random filters on an image pyramid, without weights to download."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stylemill.nn.loss_networks.features import LossFeatures, calibration_images, measured_energies, network_digest
from stylemill.nn.loss_weights import LAYER_WEIGHTS, LAYERS, LayerWeights

NUM_FILTERS = 64
NUM_STROKE_FILTERS = 24
"""Number of filters with zero mean."""
NUM_LEVELS = len(LAYERS["pyramid"])
KERNEL_PX = 7
_BINOMIAL = (1 / 8, 3 / 8, 3 / 8, 1 / 8)
_SEED = 1606
_FRACTION = 2.0**-12
"""Parameters are rounded to multiples of this, so that rounding errors of a machine do not change the loss."""


class PyramidLossNetwork(nn.Module):
    """One bank of fixed random filters and a ReLU at each level of a pyramid of halved images.

    Each filter of each level is calibrated to zero mean and unit variance on images drawn by code.

    Source: after Ustyuzhaninov et al. 2016, arXiv:1606.00021.
    """

    name = "pyramid"
    weights_LOIHW: Tensor
    biases_LO: Tensor

    def __init__(self, layers: LayerWeights = LAYER_WEIGHTS["pyramid"]) -> None:
        super().__init__()
        self.layers = layers
        filters_OIHW = _draw_filters(np.random.RandomState(_SEED))
        images_NCHW = torch.from_numpy(calibration_images())
        weights_LOIHW, biases_LO = _calibrate(torch.from_numpy(filters_OIHW), images_NCHW)
        self.register_buffer("weights_LOIHW", weights_LOIHW)
        self.register_buffer("biases_LO", biases_LO)
        self.content_energies = measured_energies(self)

    def features(self, batch_NCHW: Tensor) -> LossFeatures:
        """Return the features of an ImageNet-normalised (N, 3, H, W) batch.

        Raises:
            ValueError: a side is too short for a content level.
        """
        found = self._run(batch_NCHW, self.layers.computed)
        return LossFeatures.of(found, self.layers)

    def content(self, batch_NCHW: Tensor) -> dict[str, Tensor]:
        """Return only the content levels' activations; raises the errors of ``features``."""
        return self._run(batch_NCHW, set(self.layers.content))

    def digest(self) -> str:
        """Return the SHA-256 of all parameters and of the layers' weights: equal digests mean equal losses."""
        return network_digest((self.weights_LOIHW, self.biases_LO), self.layers)

    def _run(self, batch_NCHW: Tensor, wanted: set[str]) -> dict[str, Tensor]:
        """Return the wanted levels for which the batch is large enough, from fine to coarse."""
        found, num_levels = {}, self._num_levels(batch_NCHW)
        for level, name in enumerate(LAYERS["pyramid"][:num_levels]):
            batch_NCHW = _halved(batch_NCHW) if level else batch_NCHW
            if name in wanted:
                found[name] = self._respond(batch_NCHW, level)
            if len(found) == len(wanted):
                break
        return found

    def _respond(self, level_NCHW: Tensor, level: int) -> Tensor:
        pad = KERNEL_PX // 2
        padded_NCHW = F.pad(level_NCHW, (pad, pad, pad, pad), mode="reflect")
        return F.relu_(F.conv2d(padded_NCHW, self.weights_LOIHW[level], self.biases_LO[level]))

    def _num_levels(self, batch_NCHW: Tensor) -> int:
        """Return the number of levels that are large enough for the reflection padding."""
        side_px = min(batch_NCHW.shape[2:])
        levels = sum(side_px >> level > KERNEL_PX // 2 for level in range(NUM_LEVELS))
        least = max(LAYERS["pyramid"].index(name) for name in self.layers.content) + 1
        if levels < least:
            raise ValueError(f"{side_px} px are too few for {least} levels of the pyramid")
        return levels


def _halved(batch_NCHW: Tensor) -> Tensor:
    """Return (N, C, H // 2, W // 2): smoothed by a binomial filter, every second pixel kept.

    A mean of two by two pixels does not suffice. Lines 8/3 px apart keep 38 % of their amplitude and look like strokes
    4 px apart one level down. Networks then draw such lines everywhere, because nearest upsampling produces them
    easily and the finest level hardly responds to them. This filter leaves 6 %.

    Source: Zhang 2019, arXiv:1904.11486 (anti-aliased pooling).
    """
    num_channels = batch_NCHW.shape[1]
    taps = batch_NCHW.new_tensor(_BINOMIAL)
    kernel_OIHW = (taps[:, None] * taps).expand(num_channels, 1, -1, -1)
    return F.conv2d(F.pad(batch_NCHW, (1, 1, 1, 1), mode="reflect"), kernel_OIHW, stride=2, groups=num_channels)


def _draw_filters(generator: np.random.RandomState) -> np.ndarray:
    """Return (NUM_FILTERS, 3, KERNEL_PX, KERNEL_PX) smoothed noise, the first NUM_STROKE_FILTERS with zero mean.

    Filters with a mean respond almost only to colour, because photographs have little energy in detail; those without
    respond to strokes. The smoothing avoids texture at the scale of single pixels.
    """
    side_px = KERNEL_PX + 2
    noise_OIHW = generator.standard_normal((NUM_FILTERS, 3, side_px, side_px))
    rows_OIHW = noise_OIHW[:, :, :-2] + 2 * noise_OIHW[:, :, 1:-1] + noise_OIHW[:, :, 2:]
    filters_OIHW = rows_OIHW[..., :-2] + 2 * rows_OIHW[..., 1:-1] + rows_OIHW[..., 2:]
    filters_OIHW[:NUM_STROKE_FILTERS] -= filters_OIHW[:NUM_STROKE_FILTERS].mean(axis=(2, 3), keepdims=True)
    return filters_OIHW


def _calibrate(filters_OIHW: Tensor, images_NCHW: Tensor) -> tuple[Tensor, Tensor]:
    """Return weights (L, O, I, H, W) and biases (L, O), float32, with zero mean and unit variance of responses."""
    weights, biases = [], []
    for level in range(NUM_LEVELS):
        images_NCHW = _halved(images_NCHW) if level else images_NCHW
        responses_NCHW = F.conv2d(images_NCHW, filters_OIHW)
        scale_O = 1 / responses_NCHW.std(dim=(0, 2, 3))
        weights.append(filters_OIHW * scale_O[:, None, None, None])
        biases.append(-responses_NCHW.mean(dim=(0, 2, 3)) * scale_O)
    return _rounded(torch.stack(weights)), _rounded(torch.stack(biases))


def _rounded(values: Tensor) -> Tensor:
    return ((values / _FRACTION).round() * _FRACTION).float()
