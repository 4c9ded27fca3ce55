"""Damage in the pixels of a JPEG: from one block on, in reading order, all colours are shifted.

A block's mean colour is stored as the difference from the block before. After damaged bytes the decoder often falls
into step again, without any error, but every later block keeps the difference that the damage has caused. So the
colours jump along a line of a special shape: above the damaged block and all blocks to its right, and one row lower
above all blocks to its left. No edge of a photograph has this shape at exactly the borders of the blocks.

``has_shift`` compares two models of the jumps across two neighbouring rows of block borders by the likelihood of their
residuals: each row has a mean jump of its own (an ordinary edge, or none), or one jump follows that line. Such a line
in a drawing or a page layout differs by its sides: in a damaged photograph the details go on across it.
"""

from __future__ import annotations

from typing import Final

import numpy as np

_LEAST_GAIN: Final = 45.0
_LEAST_GAIN_PER_BLOCK: Final = 1.0
"""Logarithm of the likelihood ratio, in total and divided by the number of blocks in a row. In 830 sound photographs
the ratio per block was 0.65 at most; of damaged ones with a visible shift, half are above 1."""

_NOISE: Final = 1.0
"""Variance, in squared levels, that is added to all residuals: rounding."""
_CLIP: Final = 2.0
"""Jumps are clipped to this multiple of their mean size: single blocks may be entirely wrong."""
_FEWEST_BLOCKS: Final = 8
_ROWS_AT_ONCE: Final = 64
_LEAST_DETAIL: Final = 1.0
"""Root of the mean square of the differences from the mean of eight pixels along the line, in levels."""
_LEAST_CORRELATION: Final = 0.3
"""Of these differences above and below the line; in photographs mostly above 0.6, across edges of drawings about 0."""
_YCBCR: Final = np.array([[0.299, -0.169, 0.5], [0.587, -0.331, -0.419], [0.114, 0.5, -0.081]], np.float32)


def has_shift(pixels: np.ndarray, block_height_px: int, block_width_px: int) -> bool:
    """Return whether the colours of a decoded JPEG jump in the middle of a row of blocks.

    Args:
        pixels: (H, W, 3) RGB or (H, W, 1) gray, uint8, as stored.
        block_height_px: height of a minimum coded unit.
        block_width_px: its width.
    """
    height, width = pixels.shape[:2]
    num_blocks = width // block_width_px
    tops = np.arange(block_height_px, height - 1, block_height_px)
    if num_blocks < _FEWEST_BLOCKS or len(tops) < 2:
        return False
    margin = max(2, num_blocks // 16)
    least = max(_LEAST_GAIN, _LEAST_GAIN_PER_BLOCK * num_blocks)
    for first in range(0, len(tops) - 1, _ROWS_AT_ONCE - 1):  # each part begins with the last row of the one before
        part = tops[first : first + _ROWS_AT_ONCE]
        lines = _lines(pixels, part, num_blocks, block_width_px)
        gains = np.maximum(_gains(_jumps(lines)), 0.0).sum(axis=0)
        gains[:, :margin] = gains[:, -margin:] = 0.0
        for row in np.flatnonzero(gains.max(axis=1) >= least):
            if _continues(pixels, part[row : row + 2], (int(gains[row].argmax()) + 1) * block_width_px):
                return True
    return False


def _continues(pixels: np.ndarray, tops: np.ndarray, damaged_px: int) -> bool:
    """Return whether the picture's details go on across the line of a jump, as they do in a damaged photograph.

    At the edges of a drawing, a page or a collage, they do not: one side is even, or shows something else.

    Args:
        pixels: (H, W, 3) or (H, W, 1).
        tops: the tops of the two neighbouring rows of blocks.
        damaged_px: left side of the first damaged block, in the upper row.
    """
    sides = []
    for offset in (-1, 0):
        upper, lower = (pixels[top + offset].mean(axis=-1) for top in tops)
        line = np.concatenate([lower[:damaged_px], upper[damaged_px:]])
        blocks = line[: len(line) // 8 * 8].reshape(-1, 8)
        sides.append(blocks - blocks.mean(axis=1, keepdims=True))
    above, below = sides
    size = float(np.sqrt(np.square(above).mean() * np.square(below).mean()))
    return size >= _LEAST_DETAIL and float((above * below).mean()) >= _LEAST_CORRELATION * size


def _lines(pixels: np.ndarray, tops: np.ndarray, num_blocks: int, block_width_px: int) -> np.ndarray:
    """Return (line, channel, row of borders, block): means of the four lines of pixels around the top of each block.

    The channels are Y, Cb and Cr, or gray.
    """
    depth = pixels.shape[2]
    step_px = block_width_px // 8
    rows = pixels[tops[:, None] + np.arange(-2, 2), : num_blocks * block_width_px : step_px]
    to_channels = _YCBCR if depth == 3 else np.ones((1, 1), np.float32)
    # One product of matrices converts the colours and takes the means over eight pixels of each block.
    means = rows.reshape(-1, 8 * depth).astype(np.float32) @ np.tile(to_channels / 8, (8, 1))
    return means.reshape(len(tops), 4, num_blocks, depth).transpose(1, 3, 0, 2)


def _jumps(lines: np.ndarray) -> np.ndarray:
    """Return (channel, row of borders, block): the mean jump across each block's top."""
    # A slope, or an edge beside the border, is no jump: half of the differences on both sides is subtracted.
    jumps = (lines[2] - lines[1]) - 0.5 * ((lines[1] - lines[0]) + (lines[3] - lines[2]))
    if len(jumps) == 3:
        # Chroma is interpolated across the border, so its jump extends over two pixels on each side.
        jumps[1:] = ((lines[3] + lines[2] - lines[1] - lines[0]) / 2)[1:]
    return jumps


def _gains(jumps: np.ndarray) -> np.ndarray:
    """Return (channel, row of borders but the last, first damaged block): log likelihood ratio of the two models."""
    num_channels, num_rows, num_blocks = jumps.shape
    pairs = np.stack([jumps[:, :-1], jumps[:, 1:]], axis=2).reshape(-1, 2 * num_blocks)
    limit = np.abs(pairs).mean(axis=1, keepdims=True) * _CLIP + 1.0
    np.clip(pairs, -limit, limit, out=pairs)
    squares = np.einsum("rb,rb->r", pairs, pairs)[:, None] + 2 * num_blocks * _NOISE
    sums = np.cumsum(pairs.reshape(-1, 2, num_blocks), axis=2)
    upper, lower = sums[:, 0], sums[:, 1]
    rows = squares - (upper[:, -1:] ** 2 + lower[:, -1:] ** 2) / num_blocks
    line = squares - np.square(upper[:, -1:] - upper + lower) / num_blocks
    gains = num_blocks * np.log(rows / line)
    return gains.reshape(num_channels, num_rows - 1, num_blocks)
