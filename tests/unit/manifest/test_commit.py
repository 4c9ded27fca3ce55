"""Plan shards, pending rows, parts and the commit."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stylemill.errors import ConfigError, RunConflict, StorageError
from stylemill.manifest.commit import (
    PlanSummary,
    commit_part,
    committed_part,
    complete_plan,
    iter_shards,
    read_pending,
    read_plan_summary,
    read_shard,
    read_success,
    remove_pending,
    unfinished_sources,
    write_pending,
    write_shard,
    write_success,
)
from stylemill.manifest.layout import RunLayout
from stylemill.manifest.read import find_run, load_success, read_manifest
from stylemill.manifest.schema import MANIFEST_SCHEMA, PLAN_SCHEMA, from_parquet, make_table
from stylemill.storage import Storage
from tests.committed import commit_run, failed_row, paint, planned, row

STYLES = ["dunes", "waves"]


@pytest.fixture
def storage() -> Storage:
    return Storage()


@pytest.fixture
def layout(storage: Storage, tmp_path: Path) -> RunLayout:
    layout = RunLayout(out=str(tmp_path), run_id="r1")
    write_shard(storage, layout, 0, make_table([planned(key) for key in ("a", "b", "c")], PLAN_SCHEMA))
    return layout


def rows_of_part(storage: Storage, layout: RunLayout, shard: int = 0) -> list[dict]:
    return from_parquet(storage.read_bytes(layout.part_uri(shard)), MANIFEST_SCHEMA).to_pylist()


def both(layout: RunLayout, *keys: str, **columns: object) -> list[dict]:
    return [row(layout, key, style, **columns) for key in keys for style in STYLES]


def test_a_part_waits_for_every_row(storage: Storage, layout: RunLayout):
    assert commit_part(storage, layout, 0, STYLES) is None
    paint(storage, layout, 0, both(layout, "c", "a"))
    assert unfinished_sources(storage, layout, 0)["key"].to_pylist() == ["b"]
    assert commit_part(storage, layout, 0, STYLES) is None
    assert not storage.exists(layout.part_uri(0))
    paint(storage, layout, 0, [failed_row(layout, "b", style) for style in STYLES])
    assert unfinished_sources(storage, layout, 0).num_rows == 0
    part = commit_part(storage, layout, 0, STYLES)
    assert part is not None and part.rows == 6
    assert part.counts == {"ok": 4, "failed": 2} and part.errors == {"Truncated": 2}
    assert part.sha256 == hashlib.sha256(storage.read_bytes(layout.part_uri(0))).hexdigest()
    found = [(one["key"], one["style"]) for one in rows_of_part(storage, layout)]
    assert found == [(key, style) for key in "abc" for style in STYLES]


def test_sources_with_duplicate_rows_are_finished(storage: Storage, layout: RunLayout):
    assert unfinished_sources(storage, layout, 0).schema.equals(PLAN_SCHEMA)
    assert unfinished_sources(storage, layout, 0)["key"].to_pylist() == ["a", "b", "c"]
    for _ in range(2):
        paint(storage, layout, 0, both(layout, "a", "b"))
    assert unfinished_sources(storage, layout, 0)["key"].to_pylist() == ["c"]


@pytest.mark.parametrize("order", [1, -1] * 3)
def test_of_two_rows_the_one_that_matches_the_stored_object_is_kept(storage: Storage, layout: RunLayout, order: int):
    paint(storage, layout, 0, both(layout, "b", "c"))
    rows = [row(layout, "a", "waves"), row(layout, "a", "waves", data=b"overwritten since", note="loser")]
    for one in rows[::order]:
        write_pending(storage, layout, 0, [one, row(layout, "a", "dunes")])
    storage.write_bytes(rows[0]["output_uri"], b"waves over a")
    part = commit_part(storage, layout, 0, STYLES)
    assert part is not None and part.rows == 6
    standing = [one for one in rows_of_part(storage, layout) if one["key"] == "a" and one["style"] == "waves"]
    assert [(one["note"], one["output_sha256"]) for one in standing] == [(None, rows[0]["output_sha256"])]


@pytest.mark.parametrize("order", [1, -1] * 3)
def test_of_two_rows_the_one_that_is_ok_is_kept(storage: Storage, layout: RunLayout, order: int):
    paint(storage, layout, 0, both(layout, "b", "c"))
    attempts = [both(layout, "a"), [failed_row(layout, "a", style) for style in STYLES]]
    for rows in attempts[::order]:
        paint(storage, layout, 0, rows)
    part = commit_part(storage, layout, 0, STYLES)
    assert part is not None and part.counts == {"ok": 6}


def test_rows_that_were_not_planned_are_refused(storage: Storage, layout: RunLayout):
    paint(storage, layout, 0, both(layout, "a", "b", "stranger"))
    with pytest.raises(StorageError, match="not in the plan"):
        commit_part(storage, layout, 0, STYLES)
    paint(storage, layout, 0, both(layout, "c"))
    with pytest.raises(StorageError, match="not in the plan"):
        commit_part(storage, layout, 0, STYLES)
    assert not storage.exists(layout.part_uri(0))


def test_rows_of_another_style_are_refused(storage: Storage, layout: RunLayout):
    paint(storage, layout, 0, [*both(layout, "a", "b"), row(layout, "c", "waves"), row(layout, "c", "fog")])
    with pytest.raises(StorageError, match="not in the plan"):
        commit_part(storage, layout, 0, STYLES)


def test_an_existing_part_is_kept(storage: Storage, layout: RunLayout):
    paint(storage, layout, 0, both(layout, "a", "b", "c"))
    first = commit_part(storage, layout, 0, STYLES)
    data = storage.read_bytes(layout.part_uri(0))
    paint(storage, layout, 0, both(layout, "a", note="later"))
    assert commit_part(storage, layout, 0, STYLES) == first
    assert storage.read_bytes(layout.part_uri(0)) == data


def test_a_part_that_was_removed_is_made_again(storage: Storage, layout: RunLayout):
    paint(storage, layout, 0, both(layout, "a", "b", "c"))
    assert commit_part(storage, layout, 0, STYLES) is not None
    storage.delete(layout.part_uri(0))
    assert committed_part(storage, layout, 0) is None
    paint(storage, layout, 0, both(layout, "a", attempt=2))
    again = commit_part(storage, layout, 0, STYLES)
    assert again is not None and again.sha256 == hashlib.sha256(storage.read_bytes(layout.part_uri(0))).hexdigest()


def test_pending_rows_of_one_source_are_written_together(storage: Storage, layout: RunLayout):
    paint(storage, layout, 0, both(layout, "a"))
    assert read_pending(storage, layout, 0).num_rows == 2
    assert read_pending(storage, layout, 1).num_rows == 0
    remove_pending(storage, layout)
    assert read_pending(storage, layout, 0).num_rows == 0


def test_success_is_written_once_and_read_back(storage: Storage, tmp_path: Path):
    layout = commit_run(storage, str(tmp_path / "out"), styles=STYLES)
    success = load_success(storage, layout)
    assert (success.run_id, success.num_rows, success.num_sources) == ("r1", 6, 3)
    assert [part.name for part in success.parts] == ["part-000000.parquet", "part-000001.parquet"]
    assert write_success(storage, layout, success) is False
    assert json.loads(storage.read_bytes(layout.success_uri))["schema_version"] == 2


def test_no_success_no_manifest(storage: Storage, tmp_path: Path):
    layout = commit_run(storage, str(tmp_path / "out"))
    storage.delete(layout.success_uri)
    assert read_success(storage, layout) is None
    for uri in (layout.out, layout.manifest_uri, layout.run_uri):
        with pytest.raises(ConfigError):
            find_run(storage, uri)
    with pytest.raises(ConfigError):
        read_manifest(storage, layout)


@pytest.mark.parametrize(
    "content", [b"", b"null", b"[]", b"{}", b"\xff", b'{"schema_version": 1}', b'{"schema_version": 3}']
)
def test_damaged_or_newer_success_is_an_error(storage: Storage, tmp_path: Path, content: bytes):
    layout = RunLayout(out=str(tmp_path), run_id="x")
    storage.write_bytes(layout.success_uri, content)
    with pytest.raises(StorageError, match="_SUCCESS"):
        read_success(storage, layout)


@pytest.fixture
def empty_layout(tmp_path: Path) -> RunLayout:
    return RunLayout(out=str(tmp_path), run_id="r")


def test_a_shard_is_written_once(empty_layout: RunLayout):
    storage, table = Storage(), make_table([planned("a"), planned("b", twins=[{"key": "x", "uri": "/x"}])], PLAN_SCHEMA)
    write_shard(storage, empty_layout, 3, table)
    write_shard(storage, empty_layout, 3, table)
    assert read_shard(storage, empty_layout, 3).equals(table)
    for other in (table.slice(0, 1), make_table([planned("a"), planned("b")], PLAN_SCHEMA)):
        with pytest.raises(RunConflict):
            write_shard(storage, empty_layout, 3, other)
    assert read_shard(storage, empty_layout, 3).equals(table)


def test_shards_are_listed_in_order_without_the_end_mark(empty_layout: RunLayout):
    storage, table = Storage(), make_table([planned("a")], PLAN_SCHEMA)
    for shard in (11, 2, 0, 1_000_000, 999_999):
        write_shard(storage, empty_layout, shard, table)
    assert read_plan_summary(storage, empty_layout) is None
    summary = PlanSummary(num_shards=5, num_sources=5, num_bytes=1)
    complete_plan(storage, empty_layout, summary)
    assert read_plan_summary(storage, empty_layout) == summary
    assert sorted(iter_shards(storage, empty_layout)) == [0, 2, 11, 999_999, 1_000_000]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=("Cs",)), max_size=20), min_size=1, max_size=10))
def test_any_text_survives_a_plan(tmp_path_factory: pytest.TempPathFactory, keys: list[str]):
    storage, layout = Storage(), RunLayout(out=str(tmp_path_factory.mktemp("plan")), run_id="r")
    write_shard(storage, layout, 0, make_table([planned(key) for key in keys], PLAN_SCHEMA))
    assert read_shard(storage, layout, 0)["key"].to_pylist() == keys
