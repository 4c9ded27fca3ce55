"""Training is killed with SIGKILL at different moments; what it ends with is what an undisturbed run ends with."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from stylemill.storage.local import TEMPORARY_PREFIX
from tests.faults.training_jobs import Start, complete_checkpoints, resumed_at, start_training, wait_for_checkpoint
from tests.processes import Job, finish, kill_everything, wait_for, workers
from tests.training_runs import assert_same_run, rows_of

STEPS, CHECKPOINT_EVERY = 24, 2
"""With nine pictures and batches of four an epoch ends within every third step: checkpoints lie before and after it."""


@pytest.fixture
def start(training_pictures: Path) -> Start:
    """Return a function that starts ``stylemill train``."""

    def begin(out: Path, **changes: object):
        return start_training(
            str(training_pictures), out, **({"steps": STEPS, "checkpoint_every": CHECKPOINT_EVERY} | changes)
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


@pytest.mark.slow
def test_the_worker_is_killed(start: Start, expected: Path, tmp_path: Path):
    job = start(tmp_path / "out")
    wait_for_checkpoint(tmp_path / "out", 4, job)
    (worker,) = workers(job.pid, "RayTrainWorker")
    os.kill(worker, signal.SIGKILL)
    said = finish(job)
    assert len(resumed_at(said)) == 1, said
    assert resumed_at(said)[0] >= 4
    assert_same_run(tmp_path / "out", expected)


@pytest.mark.parametrize(
    "step", [pytest.param(step, marks=pytest.mark.smoke if step == 8 else pytest.mark.slow) for step in (2, 8, 18)]
)
def test_everything_is_killed(step: int, start: Start, expected: Path, tmp_path: Path):
    job = start(tmp_path / "out")
    wait_for_checkpoint(tmp_path / "out", step, job)
    kill_everything(job)
    said = finish(start(tmp_path / "out"))
    # On a fast machine the last steps may be done, and the style written, before the signal arrives.
    resumed = resumed_at(said)
    assert resumed[0] >= step if resumed else "already finished" in said, said
    assert_same_run(tmp_path / "out", expected)
    assert "already finished" in finish(start(tmp_path / "out"))


@pytest.mark.slow
def test_only_the_driver_is_killed(start: Start, expected: Path, tmp_path: Path):
    job = start(tmp_path / "out")
    wait_for_checkpoint(tmp_path / "out", 4, job)
    os.kill(job.pid, signal.SIGKILL)
    job.wait()
    # The next start comes while the workers of the first may still live.
    finish(start(tmp_path / "out"))
    assert_same_run(tmp_path / "out", expected)


@pytest.mark.slow
def test_killed_again_and_again(start: Start, expected: Path, tmp_path: Path):
    for step in (4, 10, 16):
        job = start(tmp_path / "out")
        wait_for_checkpoint(tmp_path / "out", step, job)
        kill_everything(job)
    finish(start(tmp_path / "out"))
    assert_same_run(tmp_path / "out", expected)


def halves(out: Path) -> list[Path]:
    """Return files of the third checkpoint, or of a later one, that are being written."""
    found = (out / "checkpoints").glob(f"step-*/{TEMPORARY_PREFIX}*")
    return [half for half in found if half.parent.name >= "step-00000003"]


def state_of(task: Path) -> str:
    """Return the letter of a thread's state; T is stopped."""
    return (task / "stat").read_text().rpartition(")")[2].split()[0]


def stop_within_a_file(out: Path, job: Job) -> bool:
    """Stop the worker while it writes a file of a checkpoint; tell whether it stands there."""
    if not halves(out):
        return False
    (worker,) = workers(job.pid, "RayTrainWorker")
    os.kill(worker, signal.SIGSTOP)
    # A thread in a system call, such as the renaming of the file, ends it before it stops.
    tasks = Path(f"/proc/{worker}/task")
    deadline_s = time.monotonic() + 10
    while time.monotonic() < deadline_s and {state_of(task) for task in tasks.iterdir()} != {"T"}:
        time.sleep(0.02)
    stands_within = bool(halves(out))
    if not stands_within:
        os.kill(worker, signal.SIGCONT)
    return stands_within


@pytest.mark.slow
def test_killed_within_a_checkpoint_s_file(start: Start, tmp_path: Path):
    """A network of full width, whose state of 27 MB takes a while to write."""
    settings = {"steps": 6, "checkpoint_every": 1, "width": 1.0, "crop_px": 32, "batch_size": 1}
    finish(start(tmp_path / "expected", **settings))
    out = tmp_path / "out"
    job = start(out, **settings)
    wait_for("half a file", job, lambda: stop_within_a_file(out, job), pause_s=0.001)
    kill_everything(job)
    whole = complete_checkpoints(out)
    assert [half.parent.name for half in halves(out)] == [f"step-{max(whole) + 1:08d}.start-000001"]
    assert resumed_at(finish(start(out, **settings))) == [max(whole)]
    assert_same_run(out, tmp_path / "expected")


@pytest.mark.slow
@pytest.mark.long
def test_memory_is_flat_over_a_long_run(start: Start, tmp_path: Path):
    """A leak of one batch of crops per step (48 KiB) would add 37 MiB; rows and their copies are less than one."""
    finish(start(tmp_path / "out", steps=1000, checkpoint_every=50, sample_every=100))
    peaks = pq.read_table(tmp_path / "out" / "metrics.parquet").column("peak_memory_bytes").to_pylist()
    assert len(peaks) == 1000
    assert peaks[-1] - peaks[199] < 16 * 2**20, [peak >> 20 for peak in peaks[::50]]


@pytest.mark.slow
def test_sigterm_writes_a_checkpoint_before_the_process_ends(start: Start, tmp_path: Path):
    out, steps = tmp_path / "out", 400
    job = start(out, steps=steps)
    wait_for_checkpoint(out, 2, job)
    os.kill(job.pid, signal.SIGTERM)
    said = finish(job, code=128 + signal.SIGTERM)
    stopped_at = int(said.split("stopped at step ")[1].split(" ")[0])
    assert stopped_at < steps
    said = finish(start(out, steps=steps))
    assert resumed_at(said) == [stopped_at]
    assert f"{steps - stopped_at} steps in" in said and f"{steps} in all" in said
    assert [row["step"] for row in rows_of(out)] == list(range(1, steps + 1))
