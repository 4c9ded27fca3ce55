"""Estimates the memory that an image takes in the network, and chooses between the whole and the tiled pass.

The estimate depends only on the image's size and the network's channels, not on the machine, so the same
``max_memory`` leads to the same choice everywhere, as the fingerprint of a run requires. Tests compare it with measured
peaks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from stylemill.nn.pixels import padded_side_px
from stylemill.nn.transformer_net import IMAGE_CHANNELS, Architecture

Forward = Literal["whole", "batch", "tiled"]

PROCESS_BYTES = 600 << 20
"""Interpreter, torch and weights: memory of a worker before its first image."""

WHOLE_WORKING_BYTES = 160 << 20
"""Strips in progress and temporary memory of the kernels."""

TILED_WORKING_BYTES = 64 << 20
"""The same for bands, without ``TILED_ROWS``."""

TILED_ROWS, TILED_ROWS_PER_THREAD = 85, 65
"""Rows of full width and full resolution in the row windows of all layers together, in groups of Winograd's tiles."""

ALLOCATOR_OVERHEAD = 1.25
"""Measured peak divided by the memory in use at the widest point; the allocator keeps freed strips."""

_ITEM_BYTES = {"float32": 4, "bfloat16": 2}


@dataclass(frozen=True)
class TiledPlan:
    """Where the tiled pass stores its maps: two of a quarter of the resolution, and one of half of it."""

    planes_in_memory: int
    """0 to 3, the small ones first. The other small ones are in the scratch file; a pass does without the large one."""
    peak_bytes: int
    """Estimated peak of the process, the image and its result included."""
    scratch_bytes: int
    """Size of the scratch file."""
    max_threads: int
    """Threads whose windows fit the limit, at least those that were asked for."""


@dataclass(frozen=True)
class ForwardChoice:
    """How to repaint an image."""

    forward: Forward
    peak_bytes: int
    """Estimated peak of the process."""
    scratch_bytes: int = 0


def whole_bytes(size_px: Sequence[int], architecture: Architecture, precision: str) -> int:
    """Estimate the process's peak when one image goes through the network whole.

    At the widest point the raw results of the stem, their normalised copy for the first downsampling and the
    half-resolution results of that exist at once, besides the buffers that are kept for reuse.

    Args:
        size_px: height and width.
        architecture: of the network.
        precision: ``float32`` or ``bfloat16``.
    """
    pixels, item_bytes = _pixels(size_px), _ITEM_BYTES[precision]
    narrow, middle, wide = (architecture.channels(base) for base in (32, 64, 128))
    per_pixel = ALLOCATOR_OVERHEAD * item_bytes * (2 * narrow + middle / 2 + 3 * wide / 16)
    return int(PROCESS_BYTES + WHOLE_WORKING_BYTES + pixels * (per_pixel + 2 * IMAGE_CHANNELS))


def tiled_bytes(
    size_px: Sequence[int], architecture: Architecture, precision: str, planes_in_memory: int, num_threads: int = 1
) -> int:
    """Estimate the process's peak in the tiled pass with ``planes_in_memory`` of its maps in memory."""
    pixels = _pixels(size_px)
    plane_bytes = _plane_bytes(size_px, architecture, precision)
    half_bytes = pixels // 4 * architecture.channels(64) * _ITEM_BYTES[precision]
    half_plane_bytes = half_bytes if planes_in_memory == 3 else 0
    # The raw map is freed before the result is allocated.
    trunk = pixels * IMAGE_CHANNELS + min(2, planes_in_memory) * plane_bytes + half_plane_bytes
    painting = 2 * pixels * IMAGE_CHANNELS + min(1, planes_in_memory) * plane_bytes + half_plane_bytes
    row_bytes = _row_bytes(size_px, architecture, precision)
    working = TILED_WORKING_BYTES + (TILED_ROWS + num_threads * TILED_ROWS_PER_THREAD) * row_bytes
    return PROCESS_BYTES + working + max(trunk, painting)


def plan_tiled(
    size_px: Sequence[int], architecture: Architecture, precision: str, *, max_memory_bytes: int, num_threads: int = 1
) -> TiledPlan:
    """Keep the maps in memory that fit into ``max_memory_bytes``; the others go to the scratch file."""
    plane_bytes = _plane_bytes(size_px, architecture, precision)
    for planes_in_memory in (3, 2, 1, 0):
        peak_bytes = tiled_bytes(size_px, architecture, precision, planes_in_memory, num_threads)
        if peak_bytes <= max_memory_bytes:
            break
    scratch_bytes = max(0, 2 - planes_in_memory) * plane_bytes
    thread_bytes = TILED_ROWS_PER_THREAD * _row_bytes(size_px, architecture, precision)
    max_threads = num_threads + max(0, max_memory_bytes - peak_bytes) // thread_bytes
    return TiledPlan(planes_in_memory, peak_bytes, scratch_bytes, max_threads)


def tiled_peak_bytes(
    size_px: Sequence[int], architecture: Architecture, precision: str, *, max_memory_bytes: int
) -> int:
    """Estimate the process's peak in the tiled pass; above the limit if it cannot be met without any map in memory."""
    return plan_tiled(size_px, architecture, precision, max_memory_bytes=max_memory_bytes).peak_bytes


def choose_forward(
    size_px: Sequence[int],
    architecture: Architecture,
    precision: str,
    *,
    max_memory_bytes: int,
    batch_size: int = 1,
) -> ForwardChoice:
    """Choose between whole, micro-batch and tiled.

    Args:
        size_px: height and width of the image.
        architecture: of the network.
        precision: ``float32`` or ``bfloat16``.
        max_memory_bytes: limit of the whole worker process.
        batch_size: images of this size that the caller would run together (on a GPU); 1 without batching.
    Returns:
        ``batch`` if ``batch_size`` images fit, else ``whole`` if one fits, else ``tiled``.
    """
    one_bytes = whole_bytes(size_px, architecture, precision)
    fixed_bytes = PROCESS_BYTES + WHOLE_WORKING_BYTES
    batch_bytes = fixed_bytes + batch_size * (one_bytes - fixed_bytes)
    if batch_size > 1 and batch_bytes <= max_memory_bytes:
        return ForwardChoice("batch", batch_bytes)
    if one_bytes <= max_memory_bytes:
        return ForwardChoice("whole", one_bytes)
    plan = plan_tiled(size_px, architecture, precision, max_memory_bytes=max_memory_bytes)
    return ForwardChoice("tiled", plan.peak_bytes, plan.scratch_bytes)


def largest_whole_pixels(architecture: Architecture, precision: str, *, max_memory_bytes: int) -> int:
    """Return the number of pixels of the largest image that fits whole; 0 if not even the smallest fits."""
    low, high = 0, 1 << 40
    while low < high:
        middle = (low + high + 1) // 2
        fits = whole_bytes((16, middle // 16), architecture, precision) <= max_memory_bytes
        low, high = (middle, high) if fits else (low, middle - 1)
    return low


def _pixels(size_px: Sequence[int]) -> int:
    return padded_side_px(size_px[0]) * padded_side_px(size_px[1])


def _row_bytes(size_px: Sequence[int], architecture: Architecture, precision: str) -> int:
    return padded_side_px(size_px[1]) * architecture.channels(32) * _ITEM_BYTES[precision]


def _plane_bytes(size_px: Sequence[int], architecture: Architecture, precision: str) -> int:
    return _pixels(size_px) // 16 * architecture.channels(128) * _ITEM_BYTES[precision]
