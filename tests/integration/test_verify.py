"""Verification as tasks of a real cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from stylemill.auditing.verify import verify
from stylemill.errors import PathConflict
from stylemill.storage import Storage, StorageOptions, join
from tests.committed import commit_run

SHARDS = [[f"{shard}/{number}.jpg" for number in range(3)] for shard in range(12)]


def test_many_parts_are_checked_once_each(local_ray: str, tmp_path: Path):
    layout = commit_run(Storage(), str(tmp_path), shards=SHARDS)
    calls: list[tuple[int, int]] = []
    found = verify(StorageOptions(), layout, on_part=lambda done, total: calls.append((done, total)))
    assert found.is_sound and (found.num_rows, found.num_objects) == (36, 36)
    assert calls == [(done, 12) for done in range(1, 13)]
    for key in ("0/1.jpg", "11/2.jpg"):
        Storage().delete(join(layout.images_uri("waves"), key))
    problems = verify(StorageOptions(), layout).problems
    assert sorted((problem.kind, problem.key) for problem in problems) == [
        ("ObjectMissing", "0/1.jpg"),
        ("ObjectMissing", "11/2.jpg"),
    ]


def test_a_storage_error_of_a_task_is_raised_unwrapped(local_ray: str, tmp_path: Path):
    layout = commit_run(Storage(), str(tmp_path), shards=SHARDS)
    Path(layout.part_uri(7)).unlink()
    Path(layout.part_uri(7)).mkdir()
    with pytest.raises(PathConflict) as caught:
        verify(StorageOptions(), layout)
    assert type(caught.value) is PathConflict and "\n" not in str(caught.value)
