from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from stylemill.images.formats.jpeg_shift import has_shift


def drawn(seed: int, height: int = 240, width: int = 400) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(40, 200, (7, 11, 3), dtype=np.uint8)).resize((width, height), Image.BICUBIC)
    # Details of a few pixels, as a lens leaves them.
    fine = Image.fromarray(rng.integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8)).resize((width, height))
    return np.clip(np.asarray(coarse) + (np.asarray(fine) - 127.5) / 6, 0, 255).astype(np.uint8)


def shifted(pixels: np.ndarray, block: int, first_block: int, by: tuple[int, int, int]) -> np.ndarray:
    """Shift the colours of all blocks from one on, in reading order."""
    height, width = pixels.shape[:2]
    number = (np.arange(height) // block)[:, None] * (width // block) + (np.arange(width) // block)[None]
    changed = pixels + np.where(number[..., None] >= first_block, np.array(by), 0)
    return np.clip(changed, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("block", [8, 16])
@pytest.mark.parametrize("by", [(40, 40, 40), (-30, -30, -30), (0, 30, 0), (25, -10, 0)])
def test_colours_that_change_from_one_block_on_are_found(block: int, by: tuple[int, int, int]) -> None:
    pixels = drawn(1)
    assert not has_shift(pixels, block, block)
    row = 400 // block
    assert has_shift(shifted(pixels, block, 5 * row + row // 3, by), block, block)
    assert has_shift(shifted(pixels[..., :1], block, 5 * row + row // 3, (40,)), block, block)  # type: ignore[arg-type]


@pytest.mark.parametrize("block", [8, 16])
def test_edges_are_no_shift(block: int) -> None:
    for top in range(96, 113):
        pixels = drawn(2).astype(int)
        pixels[top:] += 50  # a straight edge, in one case exactly between blocks
        assert not has_shift(np.clip(pixels, 0, 255).astype(np.uint8), block, block)
    rows, columns = np.mgrid[0:240, 0:400]
    for slope in (0.02, 0.05, -0.04, 0.3, 1.0):
        pixels = drawn(3).astype(int) + np.where(rows > 100 + slope * columns, 60, 0)[..., None]
        assert not has_shift(np.clip(pixels, 0, 255).astype(np.uint8), block, block)


def test_noise_and_even_pictures_have_no_shift() -> None:
    rng = np.random.default_rng(0)
    assert not has_shift(np.full((240, 400, 3), 90, np.uint8), 16, 16)
    assert not any(has_shift(rng.integers(0, 256, (240, 400, 3), dtype=np.uint8), 8, 8) for _ in range(20))
    assert not has_shift(np.zeros((8, 8, 1), np.uint8), 8, 8)


def test_drawings_pages_and_collages_have_no_shift() -> None:
    """Edges between blocks that are one row of blocks lower on the left: layouts in steps of 16 px have them."""
    page = np.full((480, 800, 3), 255, np.uint8)
    page[:64] = page[64:80, :320] = (60, 60, 70)
    assert not has_shift(page, 16, 16)
    chart = np.full((480, 800, 3), 255, np.uint8)
    chart[400:, :400] = chart[384:, 400:] = (200, 60, 60)
    assert not has_shift(chart, 16, 16)
    collage = np.full((480, 800, 3), 255, np.uint8)
    collage[48:288, :400], collage[32:272, 400:] = drawn(1), drawn(2)
    assert not has_shift(collage, 16, 16)
    collage[:48, :400], collage[:32, 400:] = drawn(3)[:48], drawn(4)[:32]
    assert not has_shift(collage, 16, 16)
