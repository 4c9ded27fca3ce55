from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stylemill.errors import RunConflict
from stylemill.manifest.commit import (
    PlanSummary,
    complete_plan,
    iter_shards,
    read_plan_summary,
    read_shard,
    write_shard,
)
from stylemill.manifest.layout import RunLayout
from stylemill.manifest.schema import PLAN_SCHEMA, make_table
from stylemill.storage import Storage
from tests.committed import planned


@pytest.fixture
def layout(tmp_path: Path) -> RunLayout:
    return RunLayout(out=str(tmp_path), run_id="r")


def test_a_shard_is_written_once(layout: RunLayout):
    storage, table = Storage(), make_table([planned("a"), planned("b", twins=[{"key": "x", "uri": "/x"}])], PLAN_SCHEMA)
    write_shard(storage, layout, 3, table)
    write_shard(storage, layout, 3, table)
    assert read_shard(storage, layout, 3).equals(table)
    for other in (table.slice(0, 1), make_table([planned("a"), planned("b")], PLAN_SCHEMA)):
        with pytest.raises(RunConflict):
            write_shard(storage, layout, 3, other)
    assert read_shard(storage, layout, 3).equals(table)


def test_shards_come_in_order_and_apart_from_the_end_mark(layout: RunLayout):
    storage, table = Storage(), make_table([planned("a")], PLAN_SCHEMA)
    for shard in (11, 2, 0, 1_000_000, 999_999):
        write_shard(storage, layout, shard, table)
    assert read_plan_summary(storage, layout) is None
    summary = PlanSummary(num_shards=5, num_sources=5, num_bytes=1)
    complete_plan(storage, layout, summary)
    assert read_plan_summary(storage, layout) == summary
    assert sorted(iter_shards(storage, layout)) == [0, 2, 11, 999_999, 1_000_000]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=("Cs",)), max_size=20), min_size=1, max_size=10))
def test_any_text_survives_a_plan(tmp_path_factory: pytest.TempPathFactory, keys: list[str]):
    storage, layout = Storage(), RunLayout(out=str(tmp_path_factory.mktemp("plan")), run_id="r")
    write_shard(storage, layout, 0, make_table([planned(key) for key in keys], PLAN_SCHEMA))
    assert read_shard(storage, layout, 0)["key"].to_pylist() == keys
