"""How much memory an image takes on its way through the network, and which way it therefore goes.

The estimate is arithmetic on the image's size and the network's channels: no machine is asked, so the same
``max_memory`` makes the same choice everywhere, as the fingerprint of a run requires. Tests hold it against
measured peaks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from stylemill.nn.pixels import padded_side_px
from stylemill.nn.transformer_net import IMAGE_CHANNELS, Architecture

Forward = Literal["whole", "batch", "tiled"]

PROCESS_BYTES = 600 << 20
"""Interpreter, torch and its code, weights: what a worker holds before it has seen an image."""

WHOLE_WORKING_BYTES = 160 << 20
"""Strips in work and temporaries of the kernels."""

TILED_WORKING_BYTES = 64 << 20
"""The same for bands, beside the rows of the frames."""

TILED_FRAME_ROWS = 150
"""Rows of full width and full resolution that the rolling frames hold, all layers together."""

UNRETURNED = 1.25
"""Freed strips that the allocator holds on to: measured peaks over what is in use at the widest point."""

_ITEM_BYTES = {"float32": 4, "bfloat16": 2}


@dataclass(frozen=True)
class TiledPlan:
    """Where the two stored maps of the tiled pass lie."""

    planes_in_memory: int
    """0 to 2; the others lie in the scratch file."""
    peak_bytes: int
    """Estimated peak of the process, the image and its result included."""
    scratch_bytes: int
    """What the scratch file will hold."""


@dataclass(frozen=True)
class Choice:
    """How an image is to be repainted."""

    forward: Forward
    peak_bytes: int
    """Estimated peak of the process."""
    scratch_bytes: int = 0


def whole_bytes(size_px: Sequence[int], architecture: Architecture, precision: str) -> int:
    """Estimate the process's peak when one image goes through the network whole.

    At the widest point the raw results of the stem, their normalised copy for the first downsampling and
    its half-resolution results are held at once; buffers kept for reuse hold on to the rest.

    Args:
        size_px: height and width.
        architecture: of the network.
        precision: ``float32`` or ``bfloat16``.
    """
    pixels, item_bytes = _pixels(size_px), _ITEM_BYTES[precision]
    narrow, middle, wide = (architecture.channels(base) for base in (32, 64, 128))
    per_pixel = UNRETURNED * item_bytes * (2 * narrow + middle / 2 + 3 * wide / 16)
    return int(PROCESS_BYTES + WHOLE_WORKING_BYTES + pixels * (per_pixel + 2 * IMAGE_CHANNELS))


def tiled_bytes(size_px: Sequence[int], architecture: Architecture, precision: str, planes_in_memory: int) -> int:
    """Estimate the process's peak of the tiled pass with so many of its two maps in memory."""
    pixels = _pixels(size_px)
    plane_bytes = _plane_bytes(size_px, architecture, precision)
    # The result is made when the raw map is gone already, if that was in memory.
    trunk = pixels * IMAGE_CHANNELS + planes_in_memory * plane_bytes
    painting = 2 * pixels * IMAGE_CHANNELS + min(1, planes_in_memory) * plane_bytes
    row_bytes = padded_side_px(size_px[1]) * architecture.channels(32) * _ITEM_BYTES[precision]
    working = TILED_WORKING_BYTES + TILED_FRAME_ROWS * row_bytes
    return PROCESS_BYTES + working + max(trunk, painting)


def plan_tiled(
    size_px: Sequence[int], architecture: Architecture, precision: str, *, max_memory_bytes: int
) -> TiledPlan:
    """Keep as many maps in memory as fit into ``max_memory_bytes``; the rest goes to the scratch file."""
    plane_bytes = _plane_bytes(size_px, architecture, precision)
    for planes_in_memory in (2, 1, 0):
        peak_bytes = tiled_bytes(size_px, architecture, precision, planes_in_memory)
        if peak_bytes <= max_memory_bytes:
            break
    return TiledPlan(planes_in_memory, peak_bytes, (2 - planes_in_memory) * plane_bytes)


def tiled_peak_bytes(
    size_px: Sequence[int], architecture: Architecture, precision: str, *, max_memory_bytes: int
) -> int:
    """Estimate the process's peak of the tiled pass under a limit; above it when even no map fits."""
    return plan_tiled(size_px, architecture, precision, max_memory_bytes=max_memory_bytes).peak_bytes


def choose_forward(
    size_px: Sequence[int],
    architecture: Architecture,
    precision: str,
    *,
    max_memory_bytes: int,
    batch_size: int = 1,
) -> Choice:
    """Choose between whole, micro-batch and tiled.

    Args:
        size_px: height and width of the image.
        architecture: of the network.
        precision: ``float32`` or ``bfloat16``.
        max_memory_bytes: what the worker's process may hold in all.
        batch_size: images of this size that the caller would run together (on a GPU); 1 without batching.
    Returns:
        ``batch`` if ``batch_size`` images fit, else ``whole`` if one fits, else ``tiled``.
    """
    one_bytes = whole_bytes(size_px, architecture, precision)
    fixed_bytes = PROCESS_BYTES + WHOLE_WORKING_BYTES
    batch_bytes = fixed_bytes + batch_size * (one_bytes - fixed_bytes)
    if batch_size > 1 and batch_bytes <= max_memory_bytes:
        return Choice("batch", batch_bytes)
    if one_bytes <= max_memory_bytes:
        return Choice("whole", one_bytes)
    plan = plan_tiled(size_px, architecture, precision, max_memory_bytes=max_memory_bytes)
    return Choice("tiled", plan.peak_bytes, plan.scratch_bytes)


def largest_whole_pixels(architecture: Architecture, precision: str, *, max_memory_bytes: int) -> int:
    """Return how many pixels an image may have to go through the network whole; 0 if not even the smallest does."""
    low, high = 0, 1 << 40
    while low < high:
        middle = (low + high + 1) // 2
        fits = whole_bytes((16, middle // 16), architecture, precision) <= max_memory_bytes
        low, high = (middle, high) if fits else (low, middle - 1)
    return low


def _pixels(size_px: Sequence[int]) -> int:
    return padded_side_px(size_px[0]) * padded_side_px(size_px[1])


def _plane_bytes(size_px: Sequence[int], architecture: Architecture, precision: str) -> int:
    return _pixels(size_px) // 16 * architecture.channels(128) * _ITEM_BYTES[precision]
