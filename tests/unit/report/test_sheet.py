from __future__ import annotations

import io

import pytest
from PIL import Image

from stylemill.report.pictures import before_after_sheet


def _plain(colour, size=(120, 80)):
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, format="PNG")
    return buffer.getvalue()


def test_style_left_photographs_above_paintings_below():
    pairs = [(_plain("red"), _plain("lime")), (_plain("yellow"), _plain("black", (10, 300)))]
    sheet = Image.open(io.BytesIO(before_after_sheet(_plain("blue"), pairs, cell_px=100)))
    assert sheet.format == "JPEG"
    assert sheet.size == (208 + 2 * 108, 208)
    expected = {
        (100, 100): (0, 0, 255), (266, 50): (255, 0, 0), (266, 158): (0, 255, 0),
        (374, 50): (255, 255, 0), (374, 158): (0, 0, 0), (212, 104): (255, 255, 255),
    }  # fmt: skip
    for place, colour in expected.items():
        assert sheet.getpixel(place) == pytest.approx(colour, abs=12), place


def test_a_sheet_without_pairs_is_refused():
    with pytest.raises(ValueError, match="at least one pair"):
        before_after_sheet(_plain("blue"), [])
