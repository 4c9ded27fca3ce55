"""Garbage: objects that no committed run owns."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from stylemill.auditing.ownership import find_garbage
from stylemill.cli.manifest import main
from stylemill.errors import ConfigError
from stylemill.storage import Storage
from stylemill.storage.local import TEMPORARY_PREFIX
from tests.committed import commit_run


def test_a_sound_output_holds_no_garbage(tmp_path: Path):
    commit_run(Storage(), str(tmp_path))
    assert find_garbage(Storage(), str(tmp_path)).objects == ()


def test_unknown_objects_and_leftovers_of_dead_writers_are_removed(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    layout = commit_run(Storage(), str(tmp_path))
    images = Path(layout.images_uri("waves"))
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    stray, dead, living = (images / name for name in ("stray.jpg", f"{TEMPORARY_PREFIX}1", f"{TEMPORARY_PREFIX}2"))
    for path in (stray, dead, living):
        path.write_bytes(b"half")
    os.utime(dead, (0, 0))
    assert main(["gc", str(tmp_path)]) == 0
    assert "stray.jpg" in capsys.readouterr().out
    assert stray.exists() and dead.exists()
    assert main(["gc", str(tmp_path), "--delete"]) == 0
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == before | {living}


def test_a_folder_of_images_that_no_run_made_is_left_alone(tmp_path: Path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "logo.png").write_bytes(b"mine")
    (tmp_path / "runs" / "marathon").mkdir(parents=True)
    (tmp_path / "runs" / "marathon" / "notes.txt").write_bytes(b"mine")
    for out in (tmp_path, tmp_path / "nowhere", tmp_path / "images" / "logo.png"):
        with pytest.raises(ConfigError, match="contains no run"):
            main(["gc", str(out), "--delete"])
    assert (tmp_path / "images" / "logo.png").exists()
