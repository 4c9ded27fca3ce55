"""Jobs that are stopped or killed: nothing of them stays on the cluster, and submitting again resumes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stylemill.manifest.read import find_run, read_manifest
from stylemill.storage import Storage
from stylemill.style_model import to_bytes
from tests.clusters import Cluster, cluster
from tests.drawn import image_bytes, style_model
from tests.processes import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.long]

NUM_IMAGES = 400
"""Enough that a busy machine is still painting when it is stopped for the second time."""

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def head() -> Iterator[Cluster]:
    with cluster(isolated=False) as made:
        made.start_head(num_cpus=1)
        yield made


@pytest.fixture
def run(head: Cluster, stylemill: Callable[..., Any]) -> Run:
    return lambda *arguments: stylemill(*arguments, RAY_ADDRESS=head.address, **head.environment)


@pytest.fixture
def stylize(tmp_path: Path) -> list[object]:
    """The words of a verb that takes long enough to be disturbed."""
    (tmp_path / "style.safetensors").write_bytes(to_bytes(style_model("slow", width=0.5)))
    (tmp_path / "in").mkdir()
    for number in range(NUM_IMAGES):
        (tmp_path / "in" / f"{number:03d}.jpg").write_bytes(image_bytes(300 + number % 7, 320, number % 9))
    model, source, out = (tmp_path / name for name in ("style.safetensors", "in", "out"))
    return ["--shared-filesystem", "stylize", "--model", model, "--input", source, "--out", out]


@pytest.fixture
def train(tmp_path: Path) -> list[object]:
    (tmp_path / "content").mkdir()
    (tmp_path / "style.png").write_bytes(image_bytes(80, 96, seed=50, format="PNG"))
    for seed in range(9):
        (tmp_path / "content" / f"{seed}.jpg").write_bytes(image_bytes(90, 130, seed=seed))
    settings = {
        "style-image": tmp_path / "style.png", "content": tmp_path / "content", "out": tmp_path / "out", "steps": 400,
        "width": 0.125, "crop-px": 64, "style-size-px": 64, "cpus-per-worker": 1, "checkpoint-every": 5,
        "loss-network": "pyramid",
    }  # fmt: skip
    flags = [word for name, value in settings.items() for word in (f"--{name}", value)]
    return ["--shared-filesystem", "train", *flags]


def job_in(answer: subprocess.CompletedProcess[str]) -> str:
    assert answer.returncode == 0, answer.stderr
    return answer.stdout.split()[1]


def actors_of_ours(head: Cluster) -> list[str]:
    """Return the classes of living actors that no other job than ours starts."""
    answer: Any = head.get("/api/v0/actors?filter_keys=state&filter_predicates=%3D&filter_values=ALIVE&limit=1000")
    names = [actor["class_name"] for actor in answer["data"]["result"]["result"]]
    ours = ("BulkActor", "RunTracker", "TrainTracker", "RayTrainWorker", "TrainController", "JobSupervisor")
    return [name for name in names if any(part in name for part in ours)]


def scratch_of(head: Cluster) -> list[Path]:
    return [*(head.folder / "head" / "tmp").glob("stylemill-*")]


def drivers_of(job: str) -> list[int]:
    """Return the processes that run a job's driver."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
            is_driver = b"stylemill" in words and b"stylemill-job.yaml" in words
            if is_driver and job.encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except OSError:  # it ended meanwhile
            continue
    return found


def flushed(tmp_path: Path) -> list[Path]:
    return [*tmp_path.glob("out/runs/*/pending/*/*.parquet")]


def test_painting_that_is_stopped_and_painting_that_is_killed(
    run: Run, head: Cluster, stylize: list[object], tmp_path: Path
):
    job = job_in(run("submit", *stylize))
    wait_for("rows", None, lambda: flushed(tmp_path))
    stopped = run("jobs", "stop", job)
    assert stopped.returncode == 0 and "stopped; the same submit command resumes" in stopped.stdout, stopped.stdout
    (lease,) = tmp_path.glob("out/runs/*/lease/*.json")
    assert json.loads(lease.read_text())["released"]
    wait_for("the end of its actors", None, lambda: not actors_of_ours(head))

    num_before, second = len(flushed(tmp_path)), job_in(run("submit", *stylize))
    assert second == f"{job}-2"
    wait_for("more rows", None, lambda: len(flushed(tmp_path)) > num_before)
    for driver in wait_for("the driver", None, lambda: drivers_of(second)):
        os.kill(driver, signal.SIGKILL)
    wait_for("the end of its actors", None, lambda: not actors_of_ours(head))
    assert "failed" in run("jobs", "status", second).stdout

    third = run("submit", "--follow", *stylize)
    assert third.returncode == 0, third.stdout + third.stderr
    assert f"job {job}-3 submitted, after {second}" in third.stdout and "resumed: " in third.stdout
    rows = read_manifest(Storage(), find_run(Storage(), str(tmp_path / "out"))).to_pylist()
    assert len(rows) == NUM_IMAGES and {row["status"] for row in rows} == {"ok"}


def test_training_that_is_stopped_and_training_that_is_killed(
    run: Run, head: Cluster, train: list[object], tmp_path: Path
):
    def last_step() -> int:
        steps = [int(path.parent.name[5:].split(".")[0]) for path in tmp_path.glob("out/checkpoints/*/complete.json")]
        return max(steps, default=0)

    job = job_in(run("submit", *train))
    wait_for("a checkpoint", None, last_step)
    assert "stopped" in run("jobs", "stop", job).stdout
    wait_for("the end of its actors", None, lambda: not actors_of_ours(head))
    assert scratch_of(head) == []
    step = last_step()
    log = run("jobs", "logs", job).stdout
    assert f"stopped at step {step} of 400" in log, log

    second = job_in(run("submit", *train))
    assert second == f"{job}-2"
    wait_for("progress", None, lambda: last_step() > step)
    for driver in drivers_of(second):
        os.kill(driver, signal.SIGKILL)
    wait_for("the end of its actors", None, lambda: not actors_of_ours(head))
    assert len(scratch_of(head)) == 1  # nobody could remove it ...
    third = job_in(run("submit", *train))
    wait_for("the third start", None, lambda: "resumed at step" in run("jobs", "logs", third).stdout)
    assert len(scratch_of(head)) == 1  # ... but the next job on this machine did
    assert "stopped" in run("jobs", "stop", third).stdout
    assert scratch_of(head) == []
