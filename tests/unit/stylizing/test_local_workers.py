"""Runs whose workers are processes of this machine: what dies is replaced, and nothing outlives the driver."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from stylemill.errors import ClusterError, ConfigError
from stylemill.machines import this_machine
from stylemill.manifest.read import read_manifest
from stylemill.painting.options import PaintOptions
from stylemill.process import process_tree
from stylemill.storage import Storage
from stylemill.style_model import to_bytes
from stylemill.stylizing import local_workers
from stylemill.stylizing.config import StylizeConfig
from stylemill.stylizing.identity import BulkJob
from stylemill.stylizing.local_link import Failure
from stylemill.stylizing.local_workers import MAX_IDLE_DEATHS, LocalWorkers, WorkerProcess, choose_workers
from stylemill.stylizing.preflight import PreparedRun, prepare
from stylemill.stylizing.run import stylize
from tests.drawn import image_bytes, style_model
from tests.processes import descendants, start_stylemill, wait_for
from tests.web import web_server

MODULE = "stylemill.stylizing.local_worker"


def workers_below(pid: int) -> list[int]:
    """Return the living local workers of a driver."""
    return [child for child, command in descendants(pid) if MODULE in command]


@pytest.fixture
def prepared(tmp_path: Path) -> Callable[..., PreparedRun]:
    """Return a function that prepares a local run over some pictures."""
    (tmp_path / "in").mkdir()
    for number in range(6):
        (tmp_path / "in" / f"{number}.jpg").write_bytes(image_bytes(40, 50, number))
    (tmp_path / "style.safetensors").write_bytes(to_bytes(style_model("slow", width=1.0)))

    def make(**changes: Any) -> PreparedRun:
        fields = {"model": (str(tmp_path / "style.safetensors"),), "input": str(tmp_path / "in"), "num_actors": 1}
        return prepare(StylizeConfig(**{**fields, "out": str(tmp_path / "out"), "runner": "local", **changes}))

    return make


def rows_of(run: PreparedRun) -> dict[str, dict[str, Any]]:
    return {row["key"]: row for row in read_manifest(Storage(), run.layout).to_pylist()}


def big_image(tmp_path: Path, side_px: int = 1200) -> None:
    """Add a picture that takes a second, so that a test can meet its worker while painting it."""
    (tmp_path / "in" / "big.jpg").write_bytes(image_bytes(side_px, side_px, 9))


class Killer:
    """Progress callback that kills the worker when it has begun a picture, as often as it is told."""

    def __init__(self, times: int) -> None:
        self.times, self.killed = times, set[int]()

    def strike(self, pid: int) -> None:
        if len(self.killed) < self.times and pid not in self.killed:
            self.killed.add(pid)
            os.kill(pid, signal.SIGKILL)


def watch_begins(monkeypatch: pytest.MonkeyPatch, key: str, killer: Killer) -> None:
    """Kill the worker as soon as the driver hears that it has begun a picture."""

    class WatchedTracker(local_workers.RunTracker):
        def begin(self, begun: str, finished: Any = ()) -> None:
            super().begin(begun, finished)
            if begun == key:
                for pid in workers_below(os.getpid()):
                    killer.strike(pid)

    monkeypatch.setattr(local_workers, "RunTracker", WatchedTracker)


@pytest.mark.parametrize("deaths", [1, 2])
def test_a_dead_worker_is_replaced_and_an_image_that_kills_two_is_a_row(
    prepared: Callable[..., PreparedRun], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deaths: int
):
    big_image(tmp_path)
    killer = Killer(deaths)
    watch_begins(monkeypatch, "big.jpg", killer)
    run = prepared()
    result = stylize(run)
    assert len(killer.killed) == deaths
    rows = rows_of(run)
    assert len(rows) == result.success.num_sources == 7
    assert rows["big.jpg"]["attempt"] == deaths + 1
    failed = {key: row["error_type"] for key, row in rows.items() if row["status"] != "ok"}
    assert failed == ({} if deaths == 1 else {"big.jpg": "WorkerDied"})
    assert workers_below(os.getpid()) == []


def test_an_image_that_is_stuck_is_a_row(prepared: Callable[..., PreparedRun], tmp_path: Path):
    big_image(tmp_path, side_px=2200)
    run = prepared(paint_timeout_s=1.5)
    stylize(run)
    assert {key: row["error_type"] for key, row in rows_of(run).items() if row["status"] != "ok"} == {
        "big.jpg": "PaintTimeout"
    }


def test_several_workers_share_the_blocks(prepared: Callable[..., PreparedRun]):
    run = prepared(num_actors=min(2, os.cpu_count() or 1), paint=PaintOptions(max_memory="1GiB"))
    assert stylize(run).success.counts == {"ok": 6}


def test_workers_that_die_before_they_begin_end_the_run(
    prepared: Callable[..., PreparedRun], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "torch.py").write_text("raise SystemExit('no torch today')")
    run = prepared()
    monkeypatch.setattr(sys, "path", [str(broken), *sys.path])
    with pytest.raises(ClusterError, match="no torch today"):
        stylize(run)
    assert workers_below(os.getpid()) == []


def test_busy_workers_that_are_killed_together_are_replaced(
    prepared: Callable[..., PreparedRun], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """All had begun a source, so nothing keeps workers from painting here."""
    for small in (tmp_path / "in").iterdir():
        small.unlink()
    for number in range(MAX_IDLE_DEATHS):
        (tmp_path / "in" / f"{number}.jpg").write_bytes(image_bytes(1600, 1600, number))
    begun, killed = set[str](), list[int]()

    class WatchedTracker(local_workers.RunTracker):
        def begin(self, key: str, finished: Any = ()) -> None:
            super().begin(key, finished)
            begun.add(key)
            if len(begun) == MAX_IDLE_DEATHS and not killed:
                killed.extend(workers_below(os.getpid()))
                for pid in killed:
                    os.kill(pid, signal.SIGKILL)

    monkeypatch.setattr(local_workers, "RunTracker", WatchedTracker)
    assert stylize(prepared(), local_workers=(MAX_IDLE_DEATHS, 1)).success.counts == {"ok": MAX_IDLE_DEATHS}
    assert len(killed) == MAX_IDLE_DEATHS


@pytest.mark.parametrize("number", [0, 3])
def test_an_image_that_kills_its_worker_while_it_is_fetched_is_a_row_and_no_other_is_blamed(
    prepared: Callable[..., PreparedRun], tmp_path: Path, number: int
):
    """Nothing is begun when the worker dies first; the block is then done one source at a time."""
    killed = list[int]()

    def kill(path: str) -> None:
        if path == f"/{number}.jpg":
            for pid in workers_below(os.getpid()):
                killed.append(pid)
                os.kill(pid, signal.SIGKILL)

    with web_server() as web:
        (tmp_path / "list.txt").write_text("\n".join(f"{web.url}/{number}.jpg" for number in range(12)))
        run = prepared(input=str(tmp_path / "list.txt"))
        web.on_request = kill
        success = stylize(run).success
    assert success.counts == {"ok": 11, "failed": 1} and len(killed) == 3
    (row,) = [row for row in rows_of(run).values() if row["status"] != "ok"]
    assert row["source_uri"].endswith(f"/{number}.jpg")
    assert (row["error_type"], row["attempt"]) == ("WorkerDied", 3)


@pytest.fixture
def driver(prepared: Callable[..., PreparedRun], tmp_path: Path) -> subprocess.Popen[str]:
    """The command line, about to paint."""
    big_image(tmp_path)
    words = ["--model", "style.safetensors", "--input", "in", "--out", "out", "--runner", "local"]
    return start_stylemill("stylize", *words, cwd=tmp_path)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_workers_end_with_their_driver_and_the_same_command_resumes(
    driver: subprocess.Popen[str], prepared: Callable[..., PreparedRun], tmp_path: Path, how: signal.Signals
):
    wait_for("an image", driver, lambda: [*(tmp_path / "out" / "images").rglob("*.jpg")])
    below = process_tree(driver.pid)[1:]
    assert any(MODULE in " ".join(process.cmdline()) for process in below)
    driver.send_signal(how)
    driver.communicate()
    wait_for("the end of all workers", None, lambda: not any(process.is_running() for process in below) or None)
    if how != signal.SIGKILL:
        assert driver.returncode == (130 if how == signal.SIGINT else 143)
    run = prepared(num_actors=None)
    assert stylize(run).success.counts == {"ok": 7}


def test_an_error_of_a_worker_arrives_as_it_was_raised(prepared: Callable[..., PreparedRun]):
    run = prepared()
    Storage().write_bytes(run.layout.model_uri("slow"), b"no model")
    with pytest.raises(ConfigError, match="model") as caught:
        stylize(run)
    assert "\n" not in str(caught.value)


def test_how_many_workers_fit(prepared: Callable[..., PreparedRun]):
    config = replace(prepared().config, paint=PaintOptions(max_memory="1GiB"))
    num_cpus = len(os.sched_getaffinity(0))
    assert choose_workers(replace(config, num_actors=None)) == (max(1, num_cpus // 4), min(4, num_cpus))
    assert choose_workers(config) == (1, 1)
    assert choose_workers(replace(config, num_actors=None, threads_per_actor=num_cpus)) == (1, num_cpus)
    with pytest.raises(ConfigError, match="threads_per_actor"):
        choose_workers(replace(config, threads_per_actor=num_cpus + 1))
    with pytest.raises(ConfigError, match="max_memory"):
        choose_workers(replace(config, paint=PaintOptions(max_memory="1000000GiB")))


def test_a_container_has_as_many_workers_as_its_limits_allow(prepared: Callable[..., PreparedRun], tmp_path: Path):
    for name, text in {
        "cpu.max": "100000 100000",
        "memory.max": f"{1536 * 2**20}",
        "memory.current": f"{2**20}",
    }.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "membership").write_text("0::/\n")
    machine = this_machine(tmp_path, tmp_path / "membership")
    config = replace(prepared(num_actors=None).config, paint=PaintOptions(max_memory="1GiB"))
    assert choose_workers(config, machine) == (1, 1)
    with pytest.raises(ConfigError, match=r"threads_per_actor.*at most 1"):
        choose_workers(replace(config, threads_per_actor=2), machine)
    with pytest.raises(ConfigError, match="at most 1535MiB"):
        choose_workers(replace(config, paint=PaintOptions(max_memory="2GiB")), machine)


def test_a_worker_that_died_before_its_first_block_is_replaced(prepared: Callable[..., PreparedRun]):
    run = prepared()
    first = WorkerProcess()
    os.kill(first._process.pid, signal.SIGKILL)
    first._process.wait()
    assert stylize(run, first_worker=first).success.counts == {"ok": 6}
    first.end()


def test_a_defect_of_a_worker_arrives_with_the_traceback_that_it_had_there(prepared: Callable[..., PreparedRun]):
    run = prepared()
    job = BulkJob(config=run.config, identity=run.identity, layout=run.layout, lease_token=1)
    with LocalWorkers(job) as workers, pytest.raises(KeyError, match="attempt") as caught:
        workers.paint({0: pa.table({"key": ["a.jpg"]})})
    trace = "".join(traceback.format_exception(caught.value))
    assert "fused_actor.py" in trace and "in __call__" in trace and "KeyError: 'attempt'" in trace


class TwoParts(Exception):
    """Cannot be read back: pickle calls it with one argument."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first}, {second}")


@pytest.mark.parametrize("error", [TwoParts("one", "two"), ValueError("one, two", lambda: None)])
def test_an_exception_that_cannot_travel_arrives_as_text(error: Exception):
    try:
        raise error
    except (TwoParts, ValueError):
        arrived = Failure.of(error).exception()
    assert isinstance(arrived, RuntimeError) and type(error).__name__ in str(arrived) and "one, two" in str(arrived)
    assert "raise error" in "".join(traceback.format_exception(arrived))


def test_an_error_of_ours_arrives_without_a_traceback():
    arrived = Failure.of(ConfigError("quality", 0, "is no quality", "give 1 to 100")).exception()
    assert isinstance(arrived, ConfigError) and arrived.__cause__ is None and "give 1 to 100" in str(arrived)


def test_no_block_needs_no_worker(prepared: Callable[..., PreparedRun]):
    run = prepared()
    job = BulkJob(config=run.config, identity=run.identity, layout=run.layout, lease_token=1)
    with LocalWorkers(job) as workers:
        workers.paint({0: pa.table({"key": pa.array([], pa.string())})})
        assert workers_below(os.getpid()) == []
