"""Training is killed with SIGKILL at different moments; what it ends with is what an undisturbed run ends with."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, command_line
from tests.drawn import image_bytes
from tests.training_runs import assert_same_run, rows_of

STEPS, CHECKPOINT_EVERY, NUM_IMAGES, BATCH = 24, 2, 9, 4
"""An epoch ends within every third step: checkpoints lie before, at and after ends of epochs."""
DEADLINE_S = 300


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "content").mkdir()
    (folder / "style.png").write_bytes(image_bytes(80, 96, seed=50, format="PNG"))
    for seed in range(NUM_IMAGES):
        (folder / "content" / f"{seed}.jpg").write_bytes(image_bytes(90, 130, seed=seed))
    return folder


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(pictures: Path) -> Start:
    """Return a function that starts ``stylemill train`` in a process group of its own."""

    def begin(out: Path, steps: int = STEPS) -> subprocess.Popen[str]:
        settings = {
            "style-image": pictures / "style.png", "content": pictures / "content", "out": out, "steps": steps,
            "width": 0.125, "crop-px": 64, "batch-size": BATCH, "style-size-px": 64, "cpus-per-worker": 1,
            "checkpoint-every": CHECKPOINT_EVERY, "keep-checkpoints": 3,
        }  # fmt: skip
        words = [word for name, value in settings.items() for word in (f"--{name}", value)]
        return subprocess.Popen(
            command_line("train", *words),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            start_new_session=True,
        )

    return begin


@pytest.fixture(scope="module")
def undisturbed() -> dict[str, Path]:
    """Keeps the run that the others are compared with."""
    return {}


@pytest.fixture
def expected(undisturbed: dict[str, Path], start: Start, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if "out" not in undisturbed:
        out = tmp_path_factory.mktemp("undisturbed") / "out"
        finish(start(out))
        undisturbed["out"] = out
    return undisturbed["out"]


def finish(process: subprocess.Popen[str]) -> str:
    said, _ = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, said
    return said


def wait_for_checkpoint(out: Path, step: int, process: subprocess.Popen[str]) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    while not any(_step(path) >= step for path in (out / "checkpoints").glob("step-*/complete.json")):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline_s, f"no checkpoint of step {step}"
        time.sleep(0.02)


def _step(marker: Path) -> int:
    return int(marker.parent.name[len("step-") :].split(".")[0])


def training_workers(driver: int) -> list[int]:
    """Return the processes below the driver that run the training function."""
    children: dict[int, list[int]] = {}
    names = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            names[int(folder.name)] = (folder / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(folder.name))
    below, queue = [], [driver]
    while queue:
        below.append(queue.pop())
        queue += children.get(below[-1], [])
    return [pid for pid in below if "RayTrainWorker" in names.get(pid, "")]


def resumed_at(said: str) -> list[int]:
    return [int(line.rsplit(" ", 1)[1]) for line in said.splitlines() if line.startswith("resumed at step ")]


@pytest.mark.smoke
def test_the_worker_is_killed(start: Start, expected: Path, tmp_path: Path):
    process = start(tmp_path / "out")
    wait_for_checkpoint(tmp_path / "out", 4, process)
    (worker,) = training_workers(process.pid)
    os.kill(worker, signal.SIGKILL)
    said = finish(process)
    assert len(resumed_at(said)) == 1, said
    assert resumed_at(said)[0] >= 4
    assert_same_run(tmp_path / "out", expected)


@pytest.mark.parametrize(
    "step", [pytest.param(step, marks=pytest.mark.smoke if step == 8 else pytest.mark.slow) for step in (2, 8, 10, 18)]
)
def test_everything_is_killed(step: int, start: Start, expected: Path, tmp_path: Path):
    process = start(tmp_path / "out")
    wait_for_checkpoint(tmp_path / "out", step, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    said = finish(start(tmp_path / "out"))
    # On a fast machine the last steps may be done, and the style written, before the signal arrives.
    resumed = resumed_at(said)
    assert resumed[0] >= step if resumed else "already finished" in said, said
    assert_same_run(tmp_path / "out", expected)
    assert "already finished" in finish(start(tmp_path / "out"))


@pytest.mark.slow
def test_only_the_driver_is_killed(start: Start, expected: Path, tmp_path: Path):
    process = start(tmp_path / "out")
    wait_for_checkpoint(tmp_path / "out", 4, process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    # The next start comes while the workers of the first may still live.
    finish(start(tmp_path / "out"))
    assert_same_run(tmp_path / "out", expected)


@pytest.mark.slow
def test_killed_again_and_again(start: Start, expected: Path, tmp_path: Path):
    for step in (4, 10, 16):
        process = start(tmp_path / "out")
        wait_for_checkpoint(tmp_path / "out", step, process)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    finish(start(tmp_path / "out"))
    assert_same_run(tmp_path / "out", expected)


@pytest.mark.slow
def test_sigterm_writes_a_checkpoint_before_the_process_ends(start: Start, tmp_path: Path):
    out, steps = tmp_path / "out", 400
    process = start(out, steps)
    wait_for_checkpoint(out, 2, process)
    os.kill(process.pid, signal.SIGTERM)
    said: Any = process.communicate(timeout=DEADLINE_S)[0]
    assert process.returncode == 128 + signal.SIGTERM, said
    stopped_at = int(said.split("stopped at step ")[1].split(" ")[0])
    assert stopped_at < steps
    said = finish(start(out, steps))
    assert resumed_at(said) == [stopped_at]
    assert [row["step"] for row in rows_of(out)] == list(range(1, steps + 1))
