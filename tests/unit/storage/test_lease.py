from __future__ import annotations

import json
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from stylemill.errors import RunConflict
from stylemill.storage import Storage, lease
from stylemill.storage.lease import Lease, acquire


@pytest.fixture
def prefix(tmp_path: Path) -> str:
    return str(tmp_path / "lease")


def holder_file(prefix: str, token: int) -> Path:
    (found,) = [path for path in Path(prefix).iterdir() if int(path.stem) == token]
    return found


def change_holder(prefix: str, token: int, **changes: object) -> None:
    path = holder_file(prefix, token)
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def assert_waits_and_gives_up(prefix: str, match: str) -> None:
    """Check that a process waits for the holder of token 1, and gives up when that shows life."""
    told: list[str] = []

    def show_life(message: str) -> None:
        told.append(message)
        change_holder(prefix, 1, beat=1)

    with pytest.raises(RunConflict, match=match):
        acquire(Storage(), prefix, dead_after_s=30.0, on_wait=show_life)
    assert len(told) == 1


def test_tokens_count_up_and_a_released_lease_is_free(prefix: str):
    for token in (1, 2, 3):
        with acquire(Storage(), prefix) as held:
            assert held.token == token
            held.check()


def test_a_living_holder_of_another_machine_is_left_alone(prefix: str):
    first = acquire(Storage(), prefix)
    change_holder(prefix, 1, host="elsewhere")
    assert_waits_and_gives_up(prefix, match="elsewhere")
    first.check()


def test_a_holder_that_does_not_renew_loses_the_run(prefix: str):
    first = acquire(Storage(), prefix)  # never entered, so never renewed
    change_holder(prefix, 1, host="elsewhere")
    second = acquire(Storage(), prefix, dead_after_s=0.2)
    assert second.token == 2
    second.check()
    with pytest.raises(RunConflict, match="taken over"):
        first.check()
    with pytest.raises(RunConflict):
        Lease(Storage(), prefix, 1).check()


def test_a_dead_process_of_this_machine_is_not_waited_for(prefix: str):
    acquire(Storage(), prefix)
    change_holder(prefix, 1, process_started="1")
    told: list[str] = []
    assert acquire(Storage(), prefix, dead_after_s=1000.0, on_wait=told.append).token == 2
    assert told == []
    process = subprocess.Popen(["true"])
    process.wait()
    change_holder(prefix, 2, pid=process.pid)
    assert acquire(Storage(), prefix, dead_after_s=1000.0, on_wait=told.append).token == 3
    assert told == []


@pytest.mark.parametrize("machine", ["another boot/pid:[4026531836]", "", None])
def test_a_process_of_a_machine_or_container_with_the_same_name_is_waited_for(prefix: str, machine: str | None):
    """Its number and start time mean nothing here: a process that cannot be seen may be alive."""
    acquire(Storage(), prefix)
    if machine is None:  # another PID namespace of this kernel
        machine = json.loads(holder_file(prefix, 1).read_text())["machine"].rpartition("/")[0] + "/pid:[1]"
    change_holder(prefix, 1, process_started="1", machine=machine)
    assert_waits_and_gives_up(prefix, match="is alive")


def test_a_process_that_proc_hides_counts_as_alive(prefix: str, monkeypatch: pytest.MonkeyPatch):
    held = acquire(Storage(), prefix)
    monkeypatch.setattr(lease, "_process_started", lambda pid: "")
    assert not held._holder.is_dead_here


def test_a_holder_renews_its_lease(prefix: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lease, "RENEW_PERIOD_S", 0.01)
    with acquire(Storage(), prefix):
        path, seen = holder_file(prefix, 1), threading.Event()
        while json.loads(path.read_text())["beat"] < 3:
            seen.wait(0.01)
        assert json.loads(path.read_text())["released"] is False
    assert json.loads(path.read_text())["released"] is True


@pytest.mark.parametrize("turn", range(3))
def test_one_of_many_processes_gets_a_free_run(prefix: str, turn: int):
    start = threading.Barrier(8)

    def take(_: int) -> bool:
        start.wait()
        try:
            acquire(Storage(), prefix, dead_after_s=0.0)
        except RunConflict:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(take, range(8)))
    tokens = sorted(int(path.stem) for path in Path(prefix).iterdir())
    assert won.count(True) == len(tokens) and tokens == list(range(1, len(tokens) + 1))
    last = Lease(Storage(), prefix, tokens[-1])
    last.check()
    for token in tokens[:-1]:
        with pytest.raises(RunConflict):
            Lease(Storage(), prefix, token).check()
