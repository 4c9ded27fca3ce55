"""Two processes run the same run at once: one commits, the other is told who holds it, and the result is sound."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from stylemill.storage import join
from tests.faults.conftest import OpenProxy, paint_verb, put_library
from tests.faults.outcome import Outcome, outcome_of
from tests.processes import PATIENCE_S, wait_for, workers

pytestmark = pytest.mark.slow

Job = subprocess.Popen[str]
StartJob = Callable[..., Job]


def loser_of(jobs: list[Job]) -> Job | None:
    """Return the job that has ended while the other one goes on."""
    ended = [job for job in jobs if job.poll() is not None]
    assert len(ended) < 2, [job.communicate()[0] for job in ended]
    return ended[0] if ended else None


def check_loser(loser: Job, winner: Job) -> None:
    said, _ = loser.communicate()
    assert loser.returncode == 1, said
    assert re.search(rf"run (is held|was just taken) by process {winner.pid} on \S+ since ", said), said
    assert "Traceback" not in said


def test_on_local_files(
    library: Path, style_file: Path, start_job: StartJob, undisturbed: Outcome, tmp_path: Path
) -> None:
    jobs = [start_job(*paint_verb(style_file, library, tmp_path / "out")) for _ in range(2)]

    def hold_painting_back() -> Job | None:
        for job in jobs:
            for actor in workers(job.pid, "BulkActor"):
                os.kill(actor, signal.SIGSTOP)
        return loser_of(jobs)

    loser = wait_for("one to give way", jobs[0] if jobs[0].poll() is None else jobs[1], hold_painting_back)
    (winner,) = (job for job in jobs if job is not loser)
    check_loser(loser, winner)
    hold_painting_back_no_more(winner)
    said, _ = winner.communicate(timeout=PATIENCE_S)
    assert winner.returncode == 3, said
    assert outcome_of(str(tmp_path / "out")) == undisturbed


def hold_painting_back_no_more(job: Job) -> None:
    for actor in workers(job.pid, "BulkActor"):
        os.kill(actor, signal.SIGCONT)


def test_on_s3(
    library: Path,
    style_file: Path,
    s3_bucket: str,
    fault_proxy: OpenProxy,
    start_job: StartJob,
    undisturbed: Outcome,
) -> None:
    source, out = put_library(library, s3_bucket), join(s3_bucket, "out")
    with fault_proxy("stall", "PUT .*/images/") as proxy:
        jobs = [start_job(*paint_verb(style_file, source, out), **proxy.environment) for _ in range(2)]
        loser = wait_for("one to give way", jobs[0], lambda: loser_of(jobs))
        (winner,) = (job for job in jobs if job is not loser)
        check_loser(loser, winner)
        proxy.go_on()
        said, _ = winner.communicate(timeout=PATIENCE_S)
    assert winner.returncode == 3, said
    assert outcome_of(out) == undisturbed


def test_one_that_was_frozen_wakes_up_after_another_took_its_run(
    library: Path, style_file: Path, start_job: StartJob, undisturbed: Outcome, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    verb = paint_verb(style_file, library, out)
    frozen = start_job(*verb)
    actors = wait_for("actors", frozen, lambda: workers(frozen.pid, "BulkActor"))
    wait_for("the first image", frozen, lambda: [*out.glob("images/*/*/*.jpg")])
    for pid in (frozen.pid, *actors):
        os.kill(pid, signal.SIGSTOP)
    assert not [*out.glob("manifests/*/_SUCCESS")]
    other = start_job(*verb)
    said, _ = other.communicate(timeout=PATIENCE_S)
    assert other.returncode == 3, said
    assert f"held by process {frozen.pid}" in said
    for pid in (*actors, frozen.pid):
        os.kill(pid, signal.SIGCONT)
    said, _ = frozen.communicate(timeout=PATIENCE_S)
    assert frozen.returncode == 1, said
    assert f"taken over by process {other.pid}" in said
    assert outcome_of(str(out)) == undisturbed
