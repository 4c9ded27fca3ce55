"""Scratch folders of killed processes, periodic calls, and the memory of a process tree."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from stylemill.process import PeakMemory, periodically, process_tree_bytes, scratch_folder

HOLD_FOLDER = """
import sys, tempfile
tempfile.tempdir = sys.argv[1]
from stylemill.process import scratch_folder
with scratch_folder("run-") as folder:
    (folder / "notes").write_text("mine")
    print(folder, flush=True)
    sys.stdin.read()
"""

HOLD_MEMORY = "import sys; block = b'x' * (64 * 2**20); print('ready', flush=True); sys.stdin.read()"

needs_pss = pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux's /proc")


@pytest.fixture
def temp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def hold_folder(temp: Path) -> tuple[subprocess.Popen[str], Path]:
    command = [sys.executable, "-c", HOLD_FOLDER, str(temp)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_a_folder_is_gone_after_its_block(temp: Path):
    with pytest.raises(RuntimeError), scratch_folder("run-") as folder:
        (folder / "deep").mkdir()
        raise RuntimeError
    assert list(temp.iterdir()) == []


def test_the_next_process_removes_the_folder_of_a_killed_one(temp: Path):
    living, kept = hold_folder(temp)
    killed, left = hold_folder(temp)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert (left / "notes").exists()
    (temp / "run-of-nobody").mkdir()
    (temp / "other-tool").mkdir()
    with scratch_folder("run-") as own:
        assert {path.name for path in temp.iterdir()} == {own.name, kept.name, "run-of-nobody", "other-tool"}
    assert (kept / "notes").read_text() == "mine"
    living.communicate()
    assert not kept.exists()


def test_the_action_runs_during_the_block_and_once_after_it():
    threads: list[int] = []
    twice = threading.Event()

    def act() -> None:
        threads.append(threading.get_ident())
        if len(threads) == 2:
            twice.set()

    with periodically(act, 0.001):
        assert twice.wait(10)
    assert threads[-1] == threading.get_ident()
    assert threading.get_ident() not in threads[:-1]


def test_an_error_of_the_block_ends_it_at_once():
    calls: list[int] = []
    with pytest.raises(KeyError), periodically(lambda: calls.append(1), 60):
        raise KeyError
    assert calls == []


@pytest.fixture
def child():
    command = [sys.executable, "-S", "-c", HOLD_MEMORY]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        yield process
        process.communicate("")


@needs_pss
def test_descendants_are_counted(child):
    alone = process_tree_bytes(child.pid)
    assert alone > 64 * 2**20
    assert process_tree_bytes(os.getpid()) > alone


@needs_pss
def test_a_process_that_is_gone_counts_nothing(child):
    child.communicate("")
    assert process_tree_bytes(child.pid) is None


@needs_pss
def test_the_peak_covers_what_ran_in_the_block(child):
    with PeakMemory() as memory:
        pass
    assert memory.peak_bytes > 64 * 2**20


def test_importing_does_not_load_torch():
    code = "import sys; import stylemill.process; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_attributes_are_restored_also_after_an_error():
    from types import SimpleNamespace

    from stylemill.process import attributes

    shared = SimpleNamespace(bars=True, limit_s=60)
    with pytest.raises(RuntimeError), attributes(shared, bars=False, limit_s=-1):
        assert (shared.bars, shared.limit_s) == (False, -1)
        raise RuntimeError
    assert (shared.bars, shared.limit_s) == (True, 60)
