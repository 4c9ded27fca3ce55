"""The network in training with its convolutions in a reduced precision."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call

from pipeline.nn.transformer_net import TransformerNet


class ReducedNet(nn.Module):
    """Runs a network with activations and convolution weights in ``dtype``; the parameters stay float32.

    Weights are cast once per call, and everything between stays reduced. Autocast would send each reflection padding
    through float32 on CPU, which costs a third of the step. Normalisation keeps its float32 scale and shift.

    Args:
        net: its parameters receive the gradients.
        dtype: ``torch.bfloat16``, or ``torch.float32`` to reduce nothing.
    """

    def __init__(self, net: TransformerNet, dtype: torch.dtype) -> None:
        super().__init__()
        self.net = net
        self._dtype = dtype

    def forward(self, batch_NCHW: Tensor) -> Tensor:
        """Map (N, 3, H, W) of any float dtype to (N, 3, H', W') in ``dtype``."""
        weights = {
            name: parameter.to(self._dtype) if ".conv." in name or ".depthwise." in name else parameter
            for name, parameter in self.net.named_parameters()
        }
        result_NCHW: Tensor = functional_call(self.net, weights, (batch_NCHW.to(self._dtype),))
        return result_NCHW
