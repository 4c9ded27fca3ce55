"""Planning: shards in order of key, resumable after a kill, with the twins of each source."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stylemill.manifest.commit import iter_shards, read_plan_summary, read_shard
from stylemill.manifest.layout import RunLayout
from stylemill.storage import ObjectStat, Storage
from stylemill.stylizing import plan
from stylemill.stylizing.plan import Source, TwinFinder, plan_row, plan_sources


def found(key: str) -> ObjectStat:
    return ObjectStat(f"/in/{key}", key, len(key), f"etag of {key}")


def finder(keys: Iterable[str], stop_after: int | None = None):
    """Return a finder of these keys that is killed after ``stop_after`` of them."""

    def find(after: str, twins: TwinFinder) -> Iterator[Source]:
        for number, key in enumerate(key for key in sorted(keys) if key > after):
            if number == stop_after:
                raise Killed
            yield twins.add(found(key))

    return find


class Killed(Exception):
    """The planner's process ends here."""


def plan_of(storage: Storage, layout: RunLayout) -> list[dict]:
    return [row for shard in iter_shards(storage, layout) for row in read_shard(storage, layout, shard).to_pylist()]


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(plan, "ROWS_PER_SHARD", 3)


@pytest.fixture
def layout(tmp_path: Path) -> RunLayout:
    return RunLayout(out=str(tmp_path), run_id="r")


def test_shards_are_full_in_order_and_end_with_a_summary(layout: RunLayout):
    storage, keys = Storage(), [f"k{number}" for number in range(8)]
    assert list(plan_sources(storage, layout, finder(keys))) == [(0, 3), (1, 3), (2, 2)]
    assert [row["key"] for row in plan_of(storage, layout)] == keys
    summary = read_plan_summary(storage, layout)
    assert summary is not None
    assert (summary.num_shards, summary.num_sources, summary.num_bytes) == (3, 8, 16)


def test_a_finished_plan_is_frozen(layout: RunLayout):
    storage = Storage()
    first = list(plan_sources(storage, layout, finder("abcd")))
    assert list(plan_sources(storage, layout, finder("abcdefgh"))) == first
    assert [row["key"] for row in plan_of(storage, layout)] == list("abcd")


def test_no_sources_no_plan(layout: RunLayout):
    storage = Storage()
    assert list(plan_sources(storage, layout, finder([]))) == []
    assert read_plan_summary(storage, layout) is None
    assert list(plan_sources(storage, layout, finder("a"))) == [(0, 1)]


@pytest.mark.parametrize("key", ["..", "a/../b", "/etc/passwd", "a//b", "./a", "a/", "a\0b"])
def test_keys_that_cannot_be_mirrored_become_problems(layout: RunLayout, key: str):
    row = plan_row(Source(found=found(key)))
    assert row["problem_type"] == "BadKey" and "rename" in row["problem"]
    assert list(plan_sources(Storage(), layout, finder([key]))) == [(0, 1)]


@pytest.mark.parametrize("key", ["a b", "é", "日本/語.jpg", "a\nb", "%2e%2e/x", " ", "a.JPG", "-rf", "..."])
def test_odd_keys_are_no_problem(layout: RunLayout, key: str):
    storage = Storage()
    list(plan_sources(storage, layout, finder([key])))
    (row,) = plan_of(storage, layout)
    assert (row["key"], row["uri"], row["problem_type"], row["attempt"]) == (key, f"/in/{key}", None, 1)


def test_a_listings_own_problems_are_kept():
    row = plan_row(Source(found=ObjectStat("/in/pipe", "pipe", 0, "", "SpecialFile", "a pipe")))
    assert (row["problem_type"], row["problem"]) == ("SpecialFile", "a pipe")


def twins_of(keys: Iterable[str]) -> dict[str, list[str]]:
    finder = TwinFinder()
    sources = [finder.add(found(key)) for key in sorted(keys)]
    return {source.found.key: [twin.found.key for twin in source.twins] for source in sources if source.twins}


def test_names_that_differ_only_in_a_suffix_are_twins():
    assert twins_of(["a.tif", "a.tif.png"]) == {"a.tif.png": ["a.tif"]}
    assert twins_of(["a", "a.jpg", "a.jpeg", "a.txt"]) == {"a.jpg": ["a"], "a.jpeg": ["a"]}
    assert twins_of(["a", "a!", "a-b", "a.b/c", "a.png"]) == {"a.png": ["a"]}
    assert twins_of(["a", "a.png", "a.png.png"]) == {"a.png": ["a"], "a.png.png": ["a.png"]}
    assert twins_of(["a.jpg", "a.png", "b/a.jpg"]) == {}
    assert twins_of(["a.PNG", "a.PNG.WebP"]) == {"a.PNG.WebP": ["a.PNG"]}


def test_a_name_that_others_need_as_a_folder_is_a_twin():
    assert twins_of(["x.jpg", "x.jpg/y.jpg"]) == {"x.jpg/y.jpg": ["x.jpg"]}
    assert twins_of(["x.tif", "x.tif.png/y/z.jpg"]) == {"x.tif.png/y/z.jpg": ["x.tif"]}
    assert twins_of(["x", "x.jpg", "x.jpg/y", "x.jpg/y.png"]) == {
        "x.jpg": ["x"],
        "x.jpg/y": ["x", "x.jpg"],
        "x.jpg/y.png": ["x", "x.jpg", "x.jpg/y"],
    }
    assert twins_of(["x", "x.txt/y", "xy/z", "x-y"]) == {}


names = st.lists(st.sampled_from(["a", "b", ".", "/", ".png", ".jpg", ".JPG", "!", "-", "0"]), min_size=1, max_size=5)
keys = st.sets(names.map("".join), max_size=14)


@given(keys)
def test_twins_are_those_that_brute_force_finds(all_keys: set[str]):
    def collides(earlier: str, key: str) -> bool:
        names = {earlier, *(earlier + suffix for suffix in (".png", ".jpg", ".JPG"))}
        return key in names - {earlier} or any(key.startswith(name + "/") for name in names)

    wanted = {key: [earlier for earlier in sorted(all_keys) if collides(earlier, key)] for key in all_keys}
    assert twins_of(all_keys) == {key: twins for key, twins in wanted.items() if twins}


@settings(max_examples=20, deadline=None)
@given(keys.filter(bool), st.lists(st.integers(0, 8), max_size=3))
def test_killed_planners_leave_the_plan_of_an_undisturbed_one(
    tmp_path_factory: pytest.TempPathFactory, all_keys: set[str], kills: list[int]
):
    storage = Storage()
    calm, killed = (RunLayout(out=str(tmp_path_factory.mktemp("plan")), run_id="r") for _ in range(2))
    whole = list(plan_sources(storage, calm, finder(all_keys)))
    for stop_after in kills:
        try:
            list(plan_sources(storage, killed, finder(all_keys, stop_after)))
        except Killed:
            assert read_plan_summary(storage, killed) is None
    assert list(plan_sources(storage, killed, finder(all_keys))) == whole
    assert plan_of(storage, killed) == plan_of(storage, calm)
    assert read_plan_summary(storage, killed) == read_plan_summary(storage, calm)
