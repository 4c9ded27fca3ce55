"""Fixed images drawn by code, on which loss networks are brought to a common scale."""

from __future__ import annotations

import numpy as np

NUM_IMAGES = 4
SIZE_PX = 128
_SEED = 20160523


def calibration_images(num_images: int = NUM_IMAGES, size_px: int = SIZE_PX) -> np.ndarray:
    """Draw images with the statistics of photographs: 1/f spectrum, correlated colours, a few hard edges.

    Neither a file nor a download enters, and the legacy generator's stream is frozen by numpy, so that
    every machine draws the same images.

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
