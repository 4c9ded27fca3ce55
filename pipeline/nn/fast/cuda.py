"""Whole batches on a GPU: pinned transfers, one CUDA graph per shape, several batches in flight.

Nothing in this file has run on a GPU yet (see docs/performance.md); ``tests/gpu`` holds it to the same
tolerances as the CPU where there is one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.nn.fast.folded_net import FoldedNet
from pipeline.nn.fast.folding import OUTPUT_CENTRE
from pipeline.nn.pixels import pad_to_network
from pipeline.nn.transformer_net import TransformerNet

MAX_GRAPHS = 8
"""Shapes whose graphs are kept; a graph holds the memory of a whole forward pass."""

REPLAYS_BEFORE_GRAPH = 2
"""Times that a shape must come before it is captured: a shape that comes once is not worth it."""


@dataclass
class _Graph:
    images_NHWC: Tensor
    painted_NHWC: Tensor
    graph: torch.cuda.CUDAGraph


class InFlight:
    """A batch that the GPU is at work on."""

    def __init__(self, painted_NHWC: Tensor, done: torch.cuda.Event, size_px: tuple[int, int]) -> None:
        self._painted_NHWC, self._done, self._size_px = painted_NHWC, done, size_px

    def result(self) -> NDArray[np.uint8]:
        """Wait, and return (N, H, W, 3) uint8 without the padding."""
        self._done.synchronize()
        height_px, width_px = self._size_px
        return self._painted_NHWC[:, :height_px, :width_px].numpy()


class CudaPass:
    """Runs the folded network on one GPU.

    Args:
        net: the trained network; copied.
        dtype: of the convolutions.
        device: a CUDA device.
        compile_network: fuse with ``torch.compile``; each new shape then costs tens of seconds once, so
            only long runs over few shapes gain.
    """

    def __init__(
        self, net: TransformerNet, dtype: torch.dtype, device: torch.device, *, compile_network: bool = False
    ) -> None:
        self._device = device
        self._net = FoldedNet(net, dtype).to(device).eval()
        self._forward: Callable[[Tensor], Tensor] = (
            torch.compile(self._net, dynamic=False) if compile_network else self._net
        )
        self._stream = torch.cuda.Stream(device)
        self._graphs: OrderedDict[tuple[int, ...], _Graph] = OrderedDict()
        self._seen: dict[tuple[int, ...], int] = {}

    @torch.inference_mode()
    def submit(self, images_NHWC: NDArray[np.uint8]) -> InFlight:
        """Start on a batch of equal sizes and return at once; batches are worked on in order.

        Raises:
            torch.OutOfMemoryError: the batch is too large for the GPU.
        """
        height_px, width_px = images_NHWC.shape[1:3]
        padded_NHWC = np.stack([pad_to_network(image_HWC) for image_HWC in images_NHWC])
        pinned_NHWC = torch.from_numpy(padded_NHWC).pin_memory()
        painted_NHWC = torch.empty(pinned_NHWC.shape, dtype=torch.uint8, pin_memory=True)
        with torch.cuda.stream(self._stream):
            painted_NHWC.copy_(self._paint(pinned_NHWC), non_blocking=True)
            done = torch.cuda.Event()
            done.record(self._stream)
        return InFlight(painted_NHWC, done, (height_px, width_px))

    @torch.inference_mode()
    def values(self, image_HWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return (H, W, 3) float32 on the scale of 0 to 255, before rounding."""
        height_px, width_px = image_HWC.shape[:2]
        padded_NHWC = torch.from_numpy(pad_to_network(image_HWC)[None].copy()).to(self._device)
        values_NHWC = self._net.values(padded_NHWC).cpu().numpy() + OUTPUT_CENTRE
        return values_NHWC[0, :height_px, :width_px]

    @torch.inference_mode()
    def seconds(self, images_NHWC: NDArray[np.uint8]) -> float:
        """Return the GPU's own time for one batch without the transfers, for benchmarks."""
        padded_NHWC = np.stack([pad_to_network(image_HWC) for image_HWC in images_NHWC])
        resident_NHWC = torch.from_numpy(padded_NHWC).to(self._device)
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize(self._device)
        with torch.cuda.stream(self._stream):
            start.record(self._stream)
            self._paint(resident_NHWC)
            end.record(self._stream)
        end.synchronize()
        return start.elapsed_time(end) / 1000

    def _paint(self, images_NHWC: Tensor) -> Tensor:
        shape = tuple(images_NHWC.shape)
        graph = self._graphs.get(shape)
        if graph is None:
            self._seen[shape] = self._seen.get(shape, 0) + 1
            if self._seen[shape] <= REPLAYS_BEFORE_GRAPH:
                return self._forward(images_NHWC.to(self._device, non_blocking=True))
            graph = self._capture(shape)
        self._graphs.move_to_end(shape)
        graph.images_NHWC.copy_(images_NHWC, non_blocking=True)
        graph.graph.replay()
        return graph.painted_NHWC

    def _capture(self, shape: tuple[int, ...]) -> _Graph:
        while len(self._graphs) >= MAX_GRAPHS:
            self._graphs.popitem(last=False)
        images_NHWC = torch.zeros(shape, dtype=torch.uint8, device=self._device)
        # Earlier calls of this shape have warmed up cuDNN and the compiler, as capture requires.
        cuda_graph = torch.cuda.CUDAGraph()
        self._stream.synchronize()
        with torch.cuda.graph(cuda_graph, stream=self._stream):
            painted_NHWC = self._forward(images_NHWC)
        self._graphs[shape] = _Graph(images_NHWC, painted_NHWC, cuda_graph)
        return self._graphs[shape]
