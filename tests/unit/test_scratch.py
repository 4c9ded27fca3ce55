"""Folders of the living are kept, those of the dead removed by whoever comes next."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from stylemill.process import scratch_folder

HOLD = """
import sys, tempfile
tempfile.tempdir = sys.argv[1]
from stylemill.process import scratch_folder
with scratch_folder("run-") as folder:
    (folder / "notes").write_text("mine")
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def _own_temp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def holder(tmp_path: Path) -> tuple[subprocess.Popen[str], Path]:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root)
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_a_folder_is_gone_after_its_block(tmp_path: Path):
    with pytest.raises(RuntimeError), scratch_folder("run-") as folder:
        (folder / "deep").mkdir()
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_killed_process_leaves_a_folder_that_the_next_one_removes(tmp_path: Path):
    living, kept = holder(tmp_path)
    killed, left = holder(tmp_path)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert (left / "notes").exists()
    (tmp_path / "run-of-nobody").mkdir()
    (tmp_path / "other-tool").mkdir()
    with scratch_folder("run-") as own:
        assert {path.name for path in tmp_path.iterdir()} == {own.name, kept.name, "run-of-nobody", "other-tool"}
    assert (kept / "notes").read_text() == "mine"
    living.communicate()
    assert not kept.exists()
