"""Incremental runs: new and changed sources, failed ones, broken results; and garbage."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stylemill.auditing.ownership import find_garbage
from stylemill.auditing.repair import prepare_repair
from stylemill.auditing.verify import verify
from stylemill.errors import ConfigError, StorageError
from stylemill.manifest.commit import read_shard, write_shard
from stylemill.manifest.layout import RunLayout
from stylemill.storage import Storage, StorageOptions
from stylemill.stylizing.run import stylize
from tests.drawn import image_bytes
from tests.integration.conftest import both_runners, fill, rows_of, state_of

Paint = Callable[..., Any]

FILES = {
    "a.jpg": image_bytes(40, 50, 1),
    "b/c.jpg": image_bytes(41, 51, 2),
    "b/cut.jpg": image_bytes(60, 60, 3)[:300],
    "gone.jpg": image_bytes(42, 52, 4),
    "notes.txt": b"Rain on Sunday.\n" * 20,
}


@pytest.fixture
def library(tmp_path: Path) -> Path:
    return fill(tmp_path / "in", FILES)


def _keys(result: Any) -> dict[str, str]:
    return {row["key"]: row["status"] for row in rows_of(result)}


@both_runners
def test_incremental_paints_new_and_changed_sources_and_lists_deleted_ones(
    paint: Paint, library: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    first = paint(library, out)
    untouched = state_of(out / "images")["waves/a.jpg"]
    (library / "gone.jpg").unlink()
    fill(library, {"b/c.jpg": image_bytes(41, 51, 9), "new.png": image_bytes(20, 20, 5, "PNG")})

    second = paint(library, out, incremental="true")

    assert _keys(second) == {"b/c.jpg": "ok", "new.png": "ok"}
    assert second.success.parent_run_id == first.success.run_id
    assert state_of(out / "images")["waves/a.jpg"] == untouched
    assert '"gone.jpg"' in Path(second.layout.deleted_uri).read_text()
    assert paint(library, out, incremental="true").already_committed
    for result in (first, second):
        found = verify(StorageOptions(), result.layout)
        assert found.is_sound, found.problems


def _assert_true(result: Any) -> None:
    """Check that every object that a run's rows describe has their digest."""
    for row in rows_of(result):
        if row["status"] == "ok":
            assert hashlib.sha256(Path(row["output_uri"]).read_bytes()).hexdigest() == row["output_sha256"], row["key"]


@pytest.fixture
def abandon(paint: Paint, monkeypatch: pytest.MonkeyPatch) -> Paint:
    """Return a function that runs until all images are stored, and stops before any part is published."""

    def stop(*_: object) -> None:
        raise StorageError("the power went out")

    def run(*arguments: Any, **changes: Any) -> None:
        with monkeypatch.context() as patch, pytest.raises(StorageError, match="power"):
            patch.setattr("stylemill.stylizing.run.commit_part", stop)
            paint(*arguments, **changes)

    return run


def test_abandoned_runs_change_nothing_of_a_committed_one(
    paint: Paint, abandon: Paint, library: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    first = paint(library, out)
    abandon(library, out, quality=40)
    abandon(library, out, run_id="again", quality=60)
    _assert_true(first)
    assert paint(library, out).already_committed
    assert paint(library, out, incremental="true").already_committed
    fill(library, {"b/c.jpg": image_bytes(41, 51, 9)})
    abandon(library, out, incremental="true")
    _assert_true(first)
    found = verify(StorageOptions(), first.layout)
    assert found.is_sound and found.num_unfinished == 1, "the abandoned incremental run's image"
    second = paint(library, out, incremental="true")
    assert _keys(second) == {"b/c.jpg": "ok"}
    _assert_true(first)
    _assert_true(second)


def test_two_libraries_and_two_qualities_of_one_output_keep_their_results(
    paint: Paint, library: Path, tmp_path: Path
) -> None:
    out, other = tmp_path / "out", fill(tmp_path / "other", {"a.jpg": image_bytes(20, 30, 8)})
    runs = [paint(library, out), paint(other, out), paint(library, out, quality=40)]
    for result in runs:
        _assert_true(result)
        found = verify(StorageOptions(), result.layout)
        assert found.is_sound, found.problems
    assert (out / "images" / "waves" / "a.jpg").exists()
    assert paint(library, out, incremental="true").success.counts["ok"] == 3, "the newest rows have the other quality"
    assert find_garbage(Storage(), str(out)).objects == ()


def test_a_run_with_nothing_to_do_takes_nothing_from_a_newcomer(paint: Paint, library: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    paint(library, out)
    assert paint(library, out, incremental="true").already_committed
    (run_id,) = {path.name for path in (out / "runs").iterdir()} - {rows_of(paint(library, out))[0]["run_id"]}
    folder = out / "runs" / run_id
    assert {path.name for path in folder.iterdir()} == {"config.yaml", "lease", "models", "run.json"}
    assert find_garbage(Storage(), str(out)).unfinished_runs == ()
    fill(library, {"new.png": image_bytes(20, 20, 5, "PNG")})
    second = paint(library, out, incremental="true")
    assert (second.success.run_id, _keys(second)) == (run_id, {"new.png": "ok"})
    assert [path.name for path in sorted((folder / "lease").iterdir())] == ["00000001.json", "00000002.json"]


@both_runners
def test_retry_failed_paints_only_failures_and_counts_attempts(paint: Paint, library: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = paint(library, out)
    assert _keys(first)["b/cut.jpg"] == "failed"
    (library / "b" / "cut.jpg").write_bytes(image_bytes(60, 60, 3))

    second = paint(library, out, retry_failed="true")

    (row,) = rows_of(second)
    assert (row["key"], row["status"], row["attempt"]) == ("b/cut.jpg", "ok", 2)
    assert paint(library, out, retry_failed="true").already_committed
    assert _keys(first)["b/cut.jpg"] == "failed", "a committed run never changes"


def test_retry_failed_without_a_committed_run_is_refused(paint: Paint, library: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="retry_failed"):
        paint(library, tmp_path / "out", retry_failed="true")


def test_a_new_source_that_takes_a_name_makes_the_later_one_fail(paint: Paint, tmp_path: Path) -> None:
    library = fill(tmp_path / "in", {"a.tif.png": image_bytes(20, 30, 1, "PNG")})
    out = tmp_path / "out"
    paint(library, out, format="png")
    fill(library, {"a.tif": image_bytes(25, 35, 2, "TIFF")})

    second = paint(library, out, format="png", incremental="true")

    rows = {row["key"]: row for row in rows_of(second)}
    assert rows["a.tif"]["status"] == "ok"
    assert (rows["a.tif.png"]["status"], rows["a.tif.png"]["error_type"]) == ("failed", "KeyCollision")


def test_repair_paints_only_missing_and_damaged_results(paint: Paint, library: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = paint(library, out)
    images_before = {key: data for key, (_, data) in state_of(out / "images").items()}
    (out / "images" / "waves" / "a.jpg").unlink()
    damaged = out / "images" / "waves" / "b" / "c.jpg"
    damaged.write_bytes(damaged.read_bytes()[:-10])
    untouched = state_of(out / "images")["waves/gone.jpg"]

    found = verify(StorageOptions(), first.layout)
    assert {(problem.kind, problem.key) for problem in found.problems} == {
        ("ObjectMissing", "a.jpg"),
        ("ObjectChanged", "b/c.jpg"),
    }
    repaired = stylize(prepare_repair(StorageOptions(), found))

    assert _keys(repaired) == {"a.jpg": "ok", "b/c.jpg": "ok"}
    assert {key: data for key, (_, data) in state_of(out / "images").items()} == images_before
    assert state_of(out / "images")["waves/gone.jpg"] == untouched
    again = verify(StorageOptions(), first.layout)
    assert (again.is_sound, again.num_objects, again.num_superseded) == (True, 3, 0)


def test_repair_removes_nothing_that_an_unfinished_run_may_have_painted(
    paint: Paint, abandon: Paint, library: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    first = paint(library, out)
    place = out / "images" / "waves" / "a.jpg"
    place.unlink()
    fill(library, {"a.jpg": image_bytes(40, 50, 8)})
    abandon(library, out, incremental="true")  # it creates the lost object's name anew
    found = verify(StorageOptions(), first.layout)
    assert [problem.kind for problem in found.problems] == ["ObjectChanged"]
    with pytest.raises(ConfigError, match="are not committed"):
        prepare_repair(StorageOptions(), found)
    second = paint(library, out, incremental="true")
    _assert_true(second)
    assert verify(StorageOptions(), first.layout).is_sound, "the row was replaced"
    _assert_true(second)


def test_garbage_is_objects_that_no_committed_run_owns(paint: Paint, library: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = paint(library, out)
    fill(out / "images", {"waves/stray.jpg": b"nobody's", "dunes/old.jpg": b"nobody's either"})
    started = RunLayout(out=str(out), run_id="started")
    Storage().write_bytes(started.identity_uri, Storage().read_bytes(first.layout.identity_uri))
    write_shard(Storage(), started, 0, read_shard(Storage(), first.layout, 0))

    garbage = find_garbage(Storage(), str(out))

    assert {found.key for found in garbage.objects} == {"waves/stray.jpg", "dunes/old.jpg"}
    assert garbage.unfinished_runs == ("started",)
    assert first.success.run_id not in garbage.unfinished_runs
