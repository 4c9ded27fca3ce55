"""Sample grids: crops of content over what the network makes of them."""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from pipeline.nn.pixels import deprocess, normalize

NUM_SAMPLES = 4
JPEG_QUALITY = 88


@torch.no_grad()
def sample_grid(net: nn.Module, weights: dict[str, Tensor], crops_NHWC: Tensor) -> bytes:
    """Return a JPEG with the crops in the upper row and their repainted versions below.

    Args:
        net: the network in training; left as it is.
        weights: parameters to paint with, by name.
        crops_NHWC: (N, H, W, 3) uint8.
    """
    device = next(iter(weights.values())).device
    was_training = net.training
    net.eval()  # a batch norm must neither take these crops' statistics nor keep them
    painted_NCHW = torch.func.functional_call(net, weights, (normalize(crops_NHWC.to(device)),))
    net.train(was_training)
    painted_NHWC = deprocess(painted_NCHW)[:, : crops_NHWC.shape[1], : crops_NHWC.shape[2]].cpu()
    rows = [np.concatenate(list(images.numpy()), axis=1) for images in (crops_NHWC, painted_NHWC)]
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate(rows, axis=0)).save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()
