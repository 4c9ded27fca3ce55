"""Training as a process of its own, and what a test has to know about it."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.conftest import ROOT, command_line
from tests.faults.processes import descendants

DEADLINE_S = 300

Job = subprocess.Popen[str]
Start = Callable[..., Job]
"""``start(out, **settings)`` begins ``stylemill train`` in a process group of its own."""

SETTINGS: dict[str, Any] = {
    "width": 0.125, "crop_px": 64, "batch_size": 4, "style_size_px": 64, "cpus_per_worker": 1, "keep_checkpoints": 3,
}  # fmt: skip


def start_training(pictures: str, out: object, *, environment: dict[str, str] | None = None, **settings: Any) -> Job:
    """Begin to train on pictures: ``style.png`` and the folder ``content``."""
    all_settings = {"style_image": f"{pictures}/style.png", "content": f"{pictures}/content", "out": out}
    all_settings |= SETTINGS | settings
    words = [word for name, value in all_settings.items() for word in (f"--{name.replace('_', '-')}", value)]
    return subprocess.Popen(
        command_line("train", *words),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
        start_new_session=True,
    )


def finish(job: Job, code: int = 0) -> str:
    """Wait for a job's end, check its exit code and return what it said."""
    said, _ = job.communicate(timeout=DEADLINE_S)
    assert job.returncode == code, said
    assert "Traceback" not in said, said
    return said


def kill_everything(job: Job) -> None:
    """SIGKILL a job with its cluster and its workers, which Ray starts in process groups of their own."""
    below = [pid for pid, _ in descendants(job.pid)]
    os.killpg(job.pid, signal.SIGKILL)
    for pid in below:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    job.communicate()


def wait_until(is_so: Callable[[], object], what: str, job: Job, pause_s: float = 0.02) -> None:
    """Wait until something is so, as long as the job lives."""
    deadline_s = time.monotonic() + DEADLINE_S
    while not is_so():
        assert job.poll() is None, job.communicate()[0]
        assert time.monotonic() < deadline_s, what
        time.sleep(pause_s)


def wait_for_checkpoint(out: Path, step: int, job: Job) -> None:
    """Wait until a checkpoint of this step or a later one is complete."""
    wait_until(lambda: any(number >= step for number in complete_checkpoints(out)), f"checkpoint {step}", job)


def complete_checkpoints(out: Path) -> list[int]:
    """Return the steps of the complete checkpoints of a local run."""
    markers = (out / "checkpoints").glob("step-*/complete.json")
    return sorted(int(marker.parent.name[len("step-") :].split(".")[0]) for marker in markers)


def resumed_at(said: str) -> list[int]:
    """Return the steps at which a job says that it was resumed."""
    return [int(step) for step in re.findall(r"^resumed at step (\d+)$", said, re.MULTILINE)]
