"""The lattice term of the loss: a penalty on regular patterns that neither the photograph nor the style has.

A narrow network learns to paint fine lines at one distance and in one direction everywhere: to Gram matrices they look
like brushwork, because these compare which features occur together and not where. In the spectrum of a picture such a
lattice is a narrow peak, while the strokes of a painting and the details of a photograph are spread over directions.

The spectrum is that of single samples, averaged over windows. So the term is a mean over samples, whatever the split
of a batch over workers.

Sources: Liu, Gousseau and Xia 2016, arXiv:1605.01141, for the spectrum as a constraint of textures; Welch 1967,
doi:10.1109/TAU.1967.1161901, for its estimate.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

WINDOW_PX: Final = 64
"""Side of the windows; smaller pictures have no lattice term."""

_LONGEST_PERIOD_PX: Final = 16.0
_SHORTEST_PERIOD_PX: Final = 2.08
_MARGIN: Final = 0.5
"""Excess that is free, in units of the natural logarithm: the power of few windows varies by chance."""
_FLOOR: Final = 1e-4
"""Power that is added, in squared ImageNet-normalised levels: pictures without details have no shape."""


def spectrum_shape(batch_NCHW: Tensor) -> Tensor:
    """Return by how much each frequency is stronger than others of the same period, as logarithms.

    Args:
        batch_NCHW: (N, 3, H, W) of any float dtype, sides of at least WINDOW_PX.

    Returns:
        (N, WINDOW_PX, WINDOW_PX // 2 + 1) float32, by vertical and horizontal frequency.
    """
    # Autocast would run parts of it in bfloat16.
    with torch.autocast(batch_NCHW.device.type, enabled=False):
        light_NHW = batch_NCHW.float().mean(dim=1)
        hop_px = WINDOW_PX // 2
        windows = light_NHW.unfold(1, WINDOW_PX, hop_px).unfold(2, WINDOW_PX, hop_px)
        taper = torch.hann_window(WINDOW_PX, device=batch_NCHW.device)
        windows = (windows - windows.mean(dim=(-2, -1), keepdim=True)) * (taper[:, None] * taper)
        power_NYX = torch.fft.rfft2(windows).abs().square().mean(dim=(1, 2))
        levels_NYX = (power_NYX + _FLOOR).log()
        ring_YX, _ = _frequencies(batch_NCHW.device)
        flat_NP = levels_NYX.flatten(1)
        sums_NR = flat_NP.new_zeros(len(flat_NP), WINDOW_PX).index_add(1, ring_YX.flatten(), flat_NP)
        counts_R = torch.bincount(ring_YX.flatten(), minlength=WINDOW_PX).clamp(min=1)
        return levels_NYX - (sums_NR / counts_R)[:, ring_YX]


def lattice_loss(result_NCHW: Tensor, content_NCHW: Tensor, style_shape: Tensor) -> Tensor:
    """Return the mean squared excess of the result's spectrum over those of content and style; float32 scalar.

    Args:
        result_NCHW: (N, 3, H, W) ImageNet-normalised output of the network in training.
        content_NCHW: (N, 3, H, W) the content images.
        style_shape: ``spectrum_shape`` of the style image, or of one per content image.

    Returns:
        0 for sides below WINDOW_PX.
    """
    if min(result_NCHW.shape[2:]) < WINDOW_PX:
        return result_NCHW.new_zeros((), dtype=torch.float32)
    with torch.no_grad():
        allowed_NYX = torch.maximum(spectrum_shape(content_NCHW), style_shape)
        # A stroke of a slightly other period or direction is allowed, too.
        allowed_NYX = F.max_pool2d(allowed_NYX[:, None], 3, stride=1, padding=1)[:, 0] + _MARGIN
    _, weight_YX = _frequencies(result_NCHW.device)
    excess_NYX = (spectrum_shape(result_NCHW) - allowed_NYX).clamp(min=0)
    return (excess_NYX.square() * weight_YX).sum(dim=(1, 2)).mean()


@lru_cache(maxsize=4)
def _frequencies(device: torch.device) -> tuple[Tensor, Tensor]:
    """Return, by vertical and horizontal frequency, the number of the ring of equal periods, and the weight."""
    down = torch.fft.fftfreq(WINDOW_PX, device=device)[:, None]
    across = torch.fft.rfftfreq(WINDOW_PX, device=device)[None]
    frequency_YX = (down.square() + across.square()).sqrt()
    ring_YX = (frequency_YX * WINDOW_PX).round().long()
    is_seen_YX = (frequency_YX >= 1 / _LONGEST_PERIOD_PX) & (frequency_YX <= 1 / _SHORTEST_PERIOD_PX)
    return ring_YX, is_seen_YX / is_seen_YX.sum()
