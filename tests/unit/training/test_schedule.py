from __future__ import annotations

import pytest

from stylemill.training.schedule import one_cycle


@pytest.mark.parametrize("steps", [1, 2, 5, 250, 2000])
def test_rises_to_the_top_once_and_falls_to_almost_nothing(steps):
    rates = [one_cycle(step, steps, 4e-3) for step in range(steps)]
    assert all(0 < rate <= 4e-3 for rate in rates)
    top = rates.index(max(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    if steps >= 250:
        assert max(rates) == pytest.approx(4e-3, rel=1e-3)
        assert rates[0] == pytest.approx(4e-3 / 25, rel=0.05)
        assert rates[-1] < 4e-3 / 1000
