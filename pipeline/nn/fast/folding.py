"""Exact rewritings of weights: what surrounds a convolution is moved into its kernel.

Everything here is linear algebra on float32 weights; nothing approximates. The rewritten kernels give the
results of the originals up to the rounding of the arithmetic that runs them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.nn.pixels import IMAGENET_MEAN, IMAGENET_STD

MAX_LEVEL = 255
PIXEL_CENTRES = tuple(round(MAX_LEVEL * mean) for mean in IMAGENET_MEAN)
"""Whole numbers subtracted from red, green and blue: the differences are exact in bfloat16."""

OUTPUT_CENTRE = 128
"""The folded head gives pixel - 128: bfloat16 is finest around zero, and int8 holds the range."""

HEAD_COLUMNS = (4, 2, 1)
"""Neighbouring pixels of a row that the folded head computes as channels of one position, best first."""


def fold_pixels_into_stem(weight_OIHW: Tensor) -> Tensor:
    """Let the stem take ``pixel - PIXEL_CENTRES`` instead of ImageNet-normalised values.

    ``(p / 255 - mean) / std`` is ``(p - centre) / (255 std)`` plus a constant per channel. Reflection
    padding keeps a constant constant, a convolution maps it to a constant, and the instance norm behind
    the stem removes that, as it removes the bias of every convolution before it.

    Args:
        weight_OIHW: (O, 3, kH, kW) float32.
    Returns:
        (O, 3, kH, kW) float32.
    """
    scale = torch.tensor(IMAGENET_STD, dtype=torch.float64) * MAX_LEVEL
    return (weight_OIHW.double() / scale.view(1, 3, 1, 1)).float()


def fold_nearest_upsampling(weight_OIHW: Tensor) -> tuple[Tensor, Tensor]:
    """Turn "x2 nearest, reflect 1 px, 3x3 convolution" into two small kernels on the small image.

    An even output row 2i sees the source rows i-1, i, i of the doubled image, an odd one i, i, i+1; taps
    that meet the same source pixel are added up. Both column parities come out as channels of one 2x3
    kernel, so the result (H, W, 2O) in memory *is* the row of doubled width (H, 2W, O): no shuffle. The
    reflection by one pixel of the doubled image repeats the source's border pixel, so the small image
    wants replicate padding.

    Args:
        weight_OIHW: (O, I, 3, 3) float32.
    Returns:
        (2O, I, 2, 3) float32 for even output rows (source rows i-1 and i) and the same for odd ones
        (source rows i and i+1). 2/3 of the multiplications of the original.
    """
    wide = weight_OIHW.double()
    left, centre, right = wide.unbind(3)
    zero = torch.zeros_like(left)
    even_columns = torch.stack((left, centre + right, zero), dim=3)
    odd_columns = torch.stack((zero, left + centre, right), dim=3)
    columns = torch.cat((even_columns, odd_columns))
    top, middle, bottom = columns.unbind(2)
    even_rows = torch.stack((top, middle + bottom), dim=2)
    odd_rows = torch.stack((top + middle, bottom), dim=2)
    return even_rows.float(), odd_rows.float()


def fold_pixels_into_head(weight_OIHW: Tensor, bias_O: Tensor, columns: int) -> tuple[Tensor, Tensor]:
    """Let the head give ``pixel - OUTPUT_CENTRE``, for some neighbouring pixels of a row at once.

    Deprocessing (x std + mean, x 255) is affine per channel. Three output channels leave a matrix unit of
    16 columns mostly idle; the kernels of four neighbours, each shifted by one more column, fill 12.
    Run with a horizontal stride of ``columns``, the result (H, W / columns, 3 columns) is (H, W, 3).

    Args:
        weight_OIHW: (3, I, kH, kW) float32.
        bias_O: (3,) float32.
        columns: neighbouring pixels that become channels; 1 leaves the kernel's shape alone.
    Returns:
        (3 columns, I, kH, kW + columns - 1) and (3 columns,) float32.
    """
    std = torch.tensor(IMAGENET_STD, dtype=torch.float64)
    mean = torch.tensor(IMAGENET_MEAN, dtype=torch.float64)
    weight = weight_OIHW.double() * (MAX_LEVEL * std).view(3, 1, 1, 1)
    bias = (bias_O.double() * std + mean) * MAX_LEVEL - OUTPUT_CENTRE
    shifted = [F.pad(weight, (column, columns - 1 - column)) for column in range(columns)]
    return torch.cat(shifted).float(), bias.repeat(columns).float()
