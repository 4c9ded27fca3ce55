"""High dynamic range pictures as standard sRGB: PQ and HLG are decoded to light and mapped to the range of a screen.

The reference white of the picture becomes the white of sRGB. Light up to about half of it stays as it is; brighter
light is compressed smoothly up to the peak of the picture. All three channels of a pixel are scaled by the same factor,
so its hue stays. Colours outside sRGB are clipped.

Sources: ITU-R BT.2100-2, tables 4 and 5 (PQ, HLG); ITU-R BT.2408 (reference white of 203 cd/m2); ITU-R BT.2390-10,
section 5.4.1 (the curve of the compression).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from PIL import Image

from stylemill.images.chromaticity import BT_709, Primaries, linear_to_srgb, matrix_between, matrix_to_xyz

PQ: Final = 16
HLG: Final = 18
"""TransferCharacteristics of H.273."""

_REFERENCE_WHITE_CD_M2: Final = 203.0
_HLG_PEAK_CD_M2: Final = 1000.0
_HLG_GAMMA: Final = 1.2  # of the system, for a screen of 1000 cd/m2
_USUAL_PEAK_CD_M2: Final = 1000.0
_HIGHEST_PEAK_CD_M2: Final = 10_000.0
_M1, _M2 = 2610 / 16384, 2523 / 4096 * 128
_C1, _C2, _C3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
_A, _B, _C = 0.17883277, 0.28466892, 0.55991073
_STRIP_PIXELS: Final = 1 << 18
_ENCODED_STEPS: Final = 1 << 15
_BRIGHTNESS_STEPS: Final = 2048


@dataclass(frozen=True, kw_only=True)
class HdrSignal:
    """How the samples of a picture of high dynamic range become light."""

    primaries: Primaries

    transfer: int
    """``PQ`` or ``HLG``."""

    peak_cd_m2: float = _USUAL_PEAK_CD_M2
    """Brightest light of a PQ picture, as the file tells it; HLG always spans 0 to 1000 cd/m2."""

    @property
    def name(self) -> str:
        """The usual name of the transfer function."""
        return "PQ" if self.transfer == PQ else "HLG"


def to_sdr(image: Image.Image, signal: HdrSignal) -> Image.Image:
    """Return an HDR image as an sRGB image.

    Args:
        image: mode ``RGB``, without alpha.
        signal: what its samples mean.
    """
    pixels_HWC = np.asarray(image)
    light_of_sample = _light_of_samples(signal.transfer)
    to_srgb = matrix_between(signal.primaries, BT_709).T.astype(np.float32)
    luminance_C = matrix_to_xyz(signal.primaries)[1].astype(np.float32)
    brightness, factors = _compression(signal)
    encoded = np.rint(linear_to_srgb(np.linspace(0, 1, _ENCODED_STEPS)) * 255).astype(np.uint8)
    result_HWC = np.empty_like(pixels_HWC)
    num_rows = max(1, _STRIP_PIXELS // max(1, pixels_HWC.shape[1]))
    for top in range(0, pixels_HWC.shape[0], num_rows):
        light_HWC = light_of_sample[pixels_HWC[top : top + num_rows]]
        if signal.transfer == HLG:
            light_HWC *= (light_HWC @ luminance_C)[..., None] ** np.float32(_HLG_GAMMA - 1)
            light_HWC *= np.float32(_HLG_PEAK_CD_M2 / _REFERENCE_WHITE_CD_M2)
        light_HWC = light_HWC @ to_srgb
        # The brightest channel of sRGB, not of the wider space, so that no colour inside sRGB is clipped.
        factors_HW = np.interp(light_HWC.max(axis=-1), brightness, factors)
        light_HWC *= factors_HW.astype(np.float32)[..., None]
        steps_HWC = np.clip(light_HWC, 0, 1) * np.float32(_ENCODED_STEPS - 1) + np.float32(0.5)
        result_HWC[top : top + num_rows] = encoded[steps_HWC.astype(np.uint16)]
    return Image.fromarray(result_HWC)


@lru_cache(maxsize=2)
def _light_of_samples(transfer: int) -> np.ndarray:
    """Return (256,) float32: for PQ light in units of the reference white, for HLG light of the scene from 0 to 1."""
    samples = np.arange(256) / 255
    if transfer == PQ:
        return (_pq_to_light(samples) * (_HIGHEST_PEAK_CD_M2 / _REFERENCE_WHITE_CD_M2)).astype(np.float32)
    return np.where(samples <= 0.5, samples**2 / 3, (np.exp((samples - _C) / _A) + _B) / 12).astype(np.float32)


def _compression(signal: HdrSignal) -> tuple[np.ndarray, np.ndarray]:
    """Return brightnesses in units of the reference white, ascending, and the factor for light of each of them.

    Between the knee and the peak the curve is a Hermite spline over perceptual (PQ) values, with the slope 1 at the
    knee and the slope 0 at the peak.
    """
    peak = signal.peak_cd_m2 if signal.transfer == PQ else _HLG_PEAK_CD_M2
    peak = min(max(peak, _REFERENCE_WHITE_CD_M2), _HIGHEST_PEAK_CD_M2)
    source_top = float(_light_to_pq(np.array(peak / _HIGHEST_PEAK_CD_M2)))
    target_top = float(_light_to_pq(np.array(_REFERENCE_WHITE_CD_M2 / _HIGHEST_PEAK_CD_M2))) / source_top
    values = np.linspace(0, 1, _BRIGHTNESS_STEPS)
    knee = 1.5 * target_top - 0.5
    t = np.clip((values - knee) / max(1 - knee, 1e-9), 0, 1)
    spline = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (-2 * t**3 + 3 * t**2) * target_top
    mapped = np.where(values <= knee, values, spline)
    unit = _HIGHEST_PEAK_CD_M2 / _REFERENCE_WHITE_CD_M2
    brightness, target = (_pq_to_light(part * source_top) * unit for part in (values, mapped))
    factors = np.divide(target, brightness, out=np.ones_like(target), where=brightness > 0)
    beyond = np.geomspace(max(brightness[-1], 1.0) * 1.001, unit * 1.001, 256)  # brighter than the file tells: white
    return np.concatenate([brightness, beyond]), np.concatenate([factors, 1 / beyond])


def _pq_to_light(samples: np.ndarray) -> np.ndarray:
    """Return light, 1 being 10000 cd/m2, of PQ samples from 0 to 1."""
    root = samples ** (1 / _M2)
    return np.asarray((np.maximum(root - _C1, 0) / (_C2 - _C3 * root)) ** (1 / _M1))


def _light_to_pq(light: np.ndarray) -> np.ndarray:
    """Return the PQ samples from 0 to 1 of light, 1 being 10000 cd/m2."""
    power = light**_M1
    return np.asarray(((_C1 + _C2 * power) / (1 + _C3 * power)) ** _M2)
