"""A network as TorchScript, for any batch, height and width: traced, and scripted around it to pad and crop."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stylemill.nn.transformer_net import TransformerNet

METADATA_FILE = "stylemill.json"
_EXAMPLE_PX = 32


class _Painter(nn.Module):
    """Pads, paints with a traced network, crops and clamps: levels of 0 to 255 of any size in and out."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        height, width = pixels.shape[2], pixels.shape[3]
        bottom = max(16, (height + 3) // 4 * 4) - height
        right = max(16, (width + 3) // 4 * 4) - width
        padded = F.pad(pixels, [0, right, 0, bottom], mode="reflect")
        return self.network(padded)[:, :, :height, :width].clamp(0.0, 255.0)


class _Traced(nn.Module):
    """The part that is traced: the network, and the factor after its tanh."""

    def __init__(self, net: TransformerNet) -> None:
        super().__init__()
        self.net = net
        self.scale = net.architecture.pixels.output_scale

    def forward(self, pixels: Tensor) -> Tensor:
        return self.net.repaint(pixels) * self.scale


def load_torchscript(data: bytes) -> torch.jit.ScriptModule:
    """Read the output of ``to_torchscript``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        painter: torch.jit.ScriptModule = torch.jit.load(io.BytesIO(data))
    return painter


def to_torchscript(net: TransformerNet, metadata: Mapping[str, str]) -> bytes:
    """Return a module that maps (N, 3, H, W) float32 levels of 0 to 255, red first, to the same, clamped.

    Args:
        net: a network with raw pixels (see ``with_raw_pixels``).
        metadata: stored in the archive as ``extra/stylemill.json``.
    """
    example = torch.zeros(1, 3, _EXAMPLE_PX, _EXAMPLE_PX)
    buffer = io.BytesIO()
    with warnings.catch_warnings(), torch.inference_mode(False), torch.no_grad():
        warnings.simplefilter("ignore", FutureWarning)  # torch recommends torch.export; users asked for TorchScript
        warnings.simplefilter(
            "ignore", torch.jit.TracerWarning
        )  # about checks of sizes, which hold for all sides from 9 px
        traced = torch.jit.trace(_Traced(net).eval(), example, check_trace=False)
        painter = torch.jit.script(_Painter(traced).eval())
        torch.jit.save(painter, buffer, _extra_files={METADATA_FILE: json.dumps(dict(metadata), sort_keys=True)})
    return buffer.getvalue()
