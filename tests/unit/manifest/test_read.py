"""Reading committed runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from stylemill.errors import ConfigError, StorageError
from stylemill.manifest.read import find_run, iter_parts, load_success, read_manifest
from stylemill.storage import Storage, join
from tests.committed import commit_run


@pytest.fixture
def storage() -> Storage:
    return Storage()


def test_readers_trust_only_listed_parts(storage: Storage, tmp_path: Path):
    layout = commit_run(storage, str(tmp_path / "out"))
    stray = join(layout.manifest_uri, "part-000007.parquet")
    storage.write_bytes(stray, storage.read_bytes(layout.part_uri(0)))
    assert read_manifest(storage, layout)["key"].to_pylist() == ["a.jpg", "b/c.jpg", "d.jpg"]


def test_a_part_that_was_changed_is_refused(storage: Storage, tmp_path: Path):
    layout = commit_run(storage, str(tmp_path / "out"))
    storage.write_bytes(layout.part_uri(1), storage.read_bytes(layout.part_uri(0)))
    with pytest.raises(StorageError, match="part-000001"):
        list(iter_parts(storage, layout, load_success(storage, layout)))
    storage.delete(layout.part_uri(1))
    with pytest.raises(StorageError):
        read_manifest(storage, layout)


def test_runs_are_found_by_every_name_they_go_by(storage: Storage, tmp_path: Path):
    out = str(tmp_path / "out")
    layout = commit_run(storage, out)
    for uri in (out, out + "/", layout.manifest_uri, layout.run_uri, layout.success_uri, f"file://{out}"):
        assert find_run(storage, uri) == layout
    commit_run(storage, out, run_id="r2")
    assert find_run(storage, layout.manifest_uri) == layout
    with pytest.raises(ConfigError, match=r"2 committed runs.*r1.*r2"):
        find_run(storage, out)
