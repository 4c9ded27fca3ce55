"""What a network makes of an image that is all one colour: again one colour."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.nn.fast.layers import prepare_layers
from pipeline.nn.fast.team import Team
from pipeline.nn.fast.whole import WholePass
from pipeline.nn.transformer_net import TransformerNet

_SIDE_PX = 8
"""Of the image that is painted in the place of one of any size: more rows say nothing new."""


class OneColour:
    """Paints images of one colour in float32, for a network that otherwise runs in bfloat16.

    On a constant map an instance norm finds no variance and leaves its bias. The folded upsampling of even
    and odd columns rounds its kernels differently, so in bfloat16 the map is constant but for its last
    digits, and the norm would blow these up to a lattice over the whole picture.

    Args:
        net: the network, whose weights are copied.
    """

    def __init__(self, net: TransformerNet) -> None:
        self._pass = WholePass(prepare_layers(net, torch.float32), Team(1))

    def paint(self, image_HWC: NDArray[np.uint8], dtype: type) -> NDArray | None:
        """Return the painted image, or None for one of several colours.

        Args:
            image_HWC: (H, W, 3) uint8.
            dtype: ``uint8`` for rounded and clamped values, ``float32`` for values as the network gives them.
        Returns:
            (H, W, 3) of that dtype, all of one colour.
        """
        first_C = image_HWC[0, 0]
        if (image_HWC[0] != first_C).any() or (image_HWC != first_C).any():
            return None
        painted_HWC: NDArray = np.empty((_SIDE_PX, _SIDE_PX, 3), dtype)
        self._pass.run(np.full((_SIDE_PX, _SIDE_PX, 3), first_C), painted_HWC)
        return np.full(image_HWC.shape, painted_HWC[_SIDE_PX // 2, _SIDE_PX // 2])
