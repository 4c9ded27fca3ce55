"""Verification: every kind of problem is found, and nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from stylemill.auditing.verify import verify
from stylemill.errors import ConfigError
from stylemill.manifest.commit import committed_part, write_shard
from stylemill.manifest.layout import RunLayout
from stylemill.manifest.schema import MANIFEST_SCHEMA, PLAN_SCHEMA, from_parquet, make_table, to_parquet
from stylemill.storage import Storage, StorageOptions, join
from tests.committed import commit_run, planned

Problems = Callable[[], dict[str, list[str | None]]]


@pytest.fixture
def storage() -> Storage:
    return Storage()


@pytest.fixture
def layout(storage: Storage, tmp_path: Path) -> RunLayout:
    return commit_run(storage, str(tmp_path / "out"), styles=("dunes", "waves"))


@pytest.fixture
def problems(layout: RunLayout) -> Problems:
    """Return a function that verifies the run and returns the keys of the problems by kind."""

    def find() -> dict[str, list[str | None]]:
        found: dict[str, list[str | None]] = {}
        for problem in verify(StorageOptions(), layout).problems:
            assert problem.detail and problem.uri
            found.setdefault(problem.kind, []).append(problem.key)
        return found

    return find


def image(layout: RunLayout, key: str, style: str = "waves") -> str:
    return join(layout.images_uri(style), key)


def test_a_sound_run(storage: Storage, layout: RunLayout):
    seen: list[tuple[int, int]] = []
    found = verify(StorageOptions(), layout, on_part=lambda done, total: seen.append((done, total)))
    assert found.is_sound and not found.problems
    assert (found.num_rows, found.num_objects) == (6, 6)
    assert found.num_bytes == sum(item.size_bytes for item in storage.list_objects(join(layout.out, "images")))
    assert seen == [(1, 2), (2, 2)]


def test_a_run_that_is_not_committed(storage: Storage, layout: RunLayout):
    storage.delete(layout.success_uri)
    with pytest.raises(ConfigError):
        verify(StorageOptions(), layout)


def test_object_missing(storage: Storage, layout: RunLayout, problems: Problems):
    storage.delete(image(layout, "b/c.jpg"))
    assert problems() == {"ObjectMissing": ["b/c.jpg"]}


def test_object_changed_in_length_or_in_one_bit(storage: Storage, layout: RunLayout, problems: Problems):
    data = storage.read_bytes(image(layout, "a.jpg"))
    storage.write_bytes(image(layout, "a.jpg"), data + b"\0")
    storage.write_bytes(image(layout, "d.jpg", "dunes"), b"D" + storage.read_bytes(image(layout, "d.jpg", "dunes"))[1:])
    assert problems() == {"ObjectChanged": ["a.jpg", "d.jpg"]}


def test_object_that_cannot_be_read(storage: Storage, layout: RunLayout, problems: Problems):
    storage.delete(image(layout, "a.jpg"))
    Path(image(layout, "a.jpg")).mkdir()
    assert problems() == {"ObjectUnreadable": ["a.jpg"]}


def test_unknown_object(storage: Storage, layout: RunLayout, problems: Problems):
    storage.write_bytes(image(layout, "deep/stranger.jpg"), b"")
    assert problems() == {"UnknownObject": [None]}


def test_unknown_objects_may_belong_to_a_run_that_is_unfinished(storage: Storage, layout: RunLayout):
    other = RunLayout(out=layout.out, run_id="killed")
    storage.write_bytes(other.identity_uri, b"{}")
    write_shard(storage, other, 0, make_table([planned("e.jpg")], PLAN_SCHEMA))
    storage.write_bytes(image(layout, "e.jpg"), b"half a run")
    found = verify(StorageOptions(), layout)
    assert found.is_sound and found.num_unfinished == 1


def test_what_a_later_run_replaced_may_be_missing(storage: Storage, layout: RunLayout):
    commit_run(storage, layout.out, "r2", [["a.jpg"]], styles=("waves",), sequence=1)
    found = verify(StorageOptions(), layout)
    assert (found.is_sound, found.num_objects, found.num_superseded) == (True, 6, 0), "all are read"
    storage.delete(image(layout, "a.jpg"))
    storage.delete(image(layout, "a.jpg", "dunes"))
    found = verify(StorageOptions(), layout)
    assert [(problem.kind, problem.style) for problem in found.problems] == [("ObjectMissing", "dunes")]
    assert found.num_superseded == 1


def test_objects_of_other_committed_runs_are_known(storage: Storage, layout: RunLayout, problems: Problems):
    commit_run(storage, layout.out, "r2", [["other.jpg"]], finished_at="2026-03-02T00:00:00+00:00")
    assert problems() == {}


def test_part_missing(storage: Storage, layout: RunLayout, problems: Problems):
    storage.delete(layout.part_uri(1))
    assert "PartMissing" in problems()


def test_part_changed(storage: Storage, layout: RunLayout, problems: Problems):
    storage.write_bytes(layout.part_uri(1), storage.read_bytes(layout.part_uri(0)))
    assert "PartChanged" in problems()


def test_plan_missing_or_damaged(storage: Storage, layout: RunLayout, problems: Problems):
    storage.delete(layout.plan_shard_uri(0))
    assert list(problems()) == ["PlanMissing"]
    for content in (b"", b"words", storage.read_bytes(layout.part_uri(0))):
        storage.write_bytes(layout.plan_shard_uri(0), content)
        assert list(problems()) == ["PlanDamaged"]


def test_plan_with_more_shards_than_the_manifest(storage: Storage, layout: RunLayout, problems: Problems):
    write_shard(storage, layout, 2, make_table([planned("e.jpg")], PLAN_SCHEMA))
    assert problems() == {"PartUnlisted": [None]}


def test_rows_against_the_plan(storage: Storage, layout: RunLayout, problems: Problems):
    storage.delete(layout.plan_shard_uri(0))
    write_shard(storage, layout, 0, make_table([planned("a.jpg"), planned("z.jpg")], PLAN_SCHEMA))
    assert problems() == {"RowMissing": ["z.jpg"] * 2, "RowUnplanned": ["b/c.jpg"] * 2}


def test_row_twice(storage: Storage, layout: RunLayout, problems: Problems):
    table = from_parquet(storage.read_bytes(layout.part_uri(1)), MANIFEST_SCHEMA)
    rows = table.to_pylist()
    _replace_part(storage, layout, 1, [*rows, rows[0]])
    assert problems() == {"RowTwice": ["d.jpg"]}


def test_a_part_that_is_not_a_manifest_but_has_the_digest(storage: Storage, layout: RunLayout, problems: Problems):
    _replace_part(storage, layout, 1, None)
    assert "PartDamaged" in problems()


def _replace_part(storage: Storage, layout: RunLayout, shard: int, rows: list[dict] | None) -> None:
    """Replace the bytes of a part, and its digest in ``_SUCCESS``."""
    old = committed_part(storage, layout, shard)
    assert old is not None
    data = b"words" if rows is None else to_parquet(make_table(rows, MANIFEST_SCHEMA))
    storage.write_bytes(layout.part_uri(shard), data)
    text = storage.read_bytes(layout.success_uri).decode()
    assert old.sha256 in text
    storage.write_bytes(layout.success_uri, text.replace(old.sha256, hashlib.sha256(data).hexdigest()).encode())
