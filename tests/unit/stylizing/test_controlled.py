"""What surrounds the network in the bulk flow."""

from __future__ import annotations

import numpy as np
import pytest

from stylemill.stylizing.config import StylizeConfig
from stylemill.stylizing.paint import Controlled


@pytest.mark.parametrize(("scale", "seen"), [(1.0, (60, 90)), (2.0, (30, 45)), (0.5, (120, 180))])
def test_texture_scale_shows_the_network_another_size_and_gives_the_same_size_back(
    scale: float, seen: tuple[int, int]
) -> None:
    controlled = Controlled(StylizeConfig(model=("m",), input=("in",), out="out", texture_scale=scale))
    flat_HWC = np.full((60, 90, 3), 100, np.uint8)
    shown_HWC = controlled.for_network(controlled.limited(flat_HWC))
    assert shown_HWC.shape[:2] == controlled.seen_size((60, 90)) == seen
    np.testing.assert_array_equal(controlled.finished(flat_HWC, 255 - shown_HWC), 255 - flat_HWC)
