from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from stylemill.storage.sources import draw, stratum_of

KEYS = [f"{folder}/{number}.jpg" for folder, num in (("cats", 80), ("dogs", 15), ("owls", 5)) for number in range(num)]


def test_strata_are_drawn_in_proportion():
    assert Counter(map(stratum_of, draw(KEYS, 20, seed=1))) == {"cats": 16, "dogs": 3, "owls": 1}


def test_the_seed_decides_and_additions_leave_a_sample_in_place():
    assert draw(KEYS, 20, seed=1) == draw(list(reversed(KEYS)), 20, seed=1) != draw(KEYS, 20, seed=2)
    before, after = set(draw(KEYS, 50, seed=1)), set(draw([*KEYS, "cats/new.jpg"], 50, seed=1))
    assert len(before & after) >= 48


@given(st.lists(st.text("ab/", min_size=1, max_size=6), unique=True, max_size=30), st.integers(0, 40))
def test_exactly_as_many_as_asked_for_or_all(keys: list[str], num: int):
    drawn = draw(keys, num, seed=0)
    assert len(drawn) == len(set(drawn)) == (min(num, len(keys)) if num else len(keys))
    assert set(drawn) <= set(keys)
