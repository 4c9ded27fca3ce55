from __future__ import annotations

import numpy as np
import pytest

from stylemill.demo.drawn_styles import STYLES, draw, draw_to

pytest.importorskip("scipy", reason="the extra for the demo has scipy")


@pytest.mark.parametrize("name", STYLES)
def test_a_style_is_the_same_each_time_and_has_strong_contrasts(name):
    image_HWC = np.asarray(draw(name, side_px=96))
    assert image_HWC.shape == (96, 96, 3)
    assert np.array_equal(image_HWC, np.asarray(draw(name, side_px=96)))
    assert not np.array_equal(image_HWC, np.asarray(draw(name, side_px=96, seed=8)))
    assert image_HWC.std() > 15 and len(np.unique(image_HWC.reshape(-1, 3), axis=0)) > 500


def test_styles_differ_in_their_colours():
    means = [np.asarray(draw(name, side_px=64)).reshape(-1, 3).mean(axis=0) for name in STYLES]
    apart = [np.linalg.norm(a - b) for number, a in enumerate(means) for b in means[:number]]
    assert min(apart) > 4


def test_unknown_names_and_tiny_pictures_are_refused():
    with pytest.raises(KeyError, match="cubism"):
        draw("cubism")
    with pytest.raises(ValueError, match="64 px"):
        draw("ink", side_px=63)


def test_an_existing_file_is_kept(tmp_path):
    draw_to(tmp_path / "a" / "ink.png", "ink", side_px=64)
    before = (tmp_path / "a" / "ink.png").stat()
    draw_to(tmp_path / "a" / "ink.png", "ink", side_px=64)
    assert (tmp_path / "a" / "ink.png").stat().st_mtime_ns == before.st_mtime_ns
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["ink.png"]
