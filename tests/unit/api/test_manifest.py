"""``stylemill.Manifest``: the state of an output and of single runs, as tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from stylemill.api.manifest import Manifest
from stylemill.errors import ConfigError
from stylemill.storage import Storage
from tests.committed import commit_run


@pytest.fixture
def out(tmp_path: Path) -> str:
    """An output of two runs over the same sources: the second painted what had failed."""
    storage = Storage()
    commit_run(storage, str(tmp_path), "r1", failed=("b/c.jpg",))
    commit_run(storage, str(tmp_path), "r2", shards=(("b/c.jpg",),), finished_at="2026-03-02T00:00:00+00:00")
    return str(tmp_path)


def test_the_newest_row_of_each_key_counts(out: str):
    manifest = Manifest.open(out)
    assert manifest.run_ids == ["r1", "r2"]
    assert manifest.counts == {"ok": 3, "failed": 0, "skipped": 0}
    rows = {row["key"]: row["run_id"] for row in manifest.to_arrow().to_pylist()}
    assert rows == {"a.jpg": "r1", "b/c.jpg": "r2", "d.jpg": "r1"}
    assert manifest.failures().empty


@pytest.mark.parametrize("place", ["manifests/r1", "runs/r1", "manifests/r1/_SUCCESS"])
def test_one_run_has_its_own_rows(out: str, place: str):
    manifest = Manifest.open(Path(out) / place)
    assert manifest.run_ids == ["r1"]
    assert manifest.counts == {"ok": 2, "failed": 1, "skipped": 0}
    failures = manifest.failures()
    assert list(failures["key"]) == ["b/c.jpg"]
    assert list(failures["error_type"]) == ["Truncated"]


def test_pandas_has_the_columns_of_the_manifest(out: str):
    frame = Manifest.open(out).to_pandas()
    assert list(frame.columns) == Manifest.open(out).to_arrow().column_names
    assert len(frame) == 3


def test_runs_over_other_sources_keep_their_rows(tmp_path: Path):
    commit_run(Storage(), str(tmp_path), "r1")
    commit_run(Storage(), str(tmp_path), "r2", input_uri="/other")
    assert Manifest.open(tmp_path).counts["ok"] == 6


def test_verify_finds_a_changed_object(out: str):
    manifest = Manifest.open(Path(out) / "manifests/r1")
    assert manifest.verify().is_sound
    painted = Path(manifest.to_arrow().column("output_uri")[0].as_py())
    painted.write_bytes(b"x" * painted.stat().st_size)
    found = manifest.verify()
    assert not found.is_sound
    assert [problem.key for problem in found.problems] == ["a.jpg"]


def test_a_fraction_out_of_range_is_refused(out: str):
    with pytest.raises(ConfigError, match="sample"):
        Manifest.open(out).verify(sample=2)


@pytest.mark.parametrize("place", ["nothing", "nothing/manifests/r9"])
def test_a_location_without_a_committed_run_is_refused(tmp_path: Path, place: str):
    with pytest.raises(ConfigError, match="committed"):
        Manifest.open(tmp_path / place)


def test_its_text_names_counts_and_place(out: str):
    assert repr(Manifest.open(out)) == f"Manifest(3 ok, 0 failed, 0 skipped; 2 runs in {out})"


def test_what_several_runs_find_is_one_problem(out: str):
    (Path(out) / "images" / "waves" / "junk.jpg").write_bytes(b"junk")
    assert [problem.kind for problem in Manifest.open(out).verify().problems] == ["UnknownObject"]
