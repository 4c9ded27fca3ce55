"""A node, or a reading worker, is lost in the middle of its work; the run completes as if nothing was.

A proxy holds back requests, so that the loss always hits work in flight.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stylemill.storage import join
from tests.faults.conftest import OpenProxy, paint_verb, put_library
from tests.faults.outcome import Outcome, outcome_of
from tests.processes import PATIENCE_S, Helper, kill_everything, wait_for, workers

pytestmark = pytest.mark.slow

StartJob = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start_nodes(s3_service: dict[str, str]) -> Iterator[Callable[..., Helper]]:
    """Return a function that starts a cluster of two nodes of one CPU each, whose workers have this environment."""
    clusters: list[Helper] = []

    def start(**environment: str) -> Helper:
        clusters.append(Helper("tests.faults.nodes", **environment))
        return clusters[-1]

    yield start
    for cluster in clusters:
        kill_everything(cluster.process)


def test_a_node_of_two_is_lost(
    library: Path,
    style_file: Path,
    s3_bucket: str,
    fault_proxy: OpenProxy,
    start_job: StartJob,
    start_nodes: Callable[..., Helper],
    undisturbed: Outcome,
) -> None:
    source, out = put_library(library, s3_bucket), join(s3_bucket, "out")
    with fault_proxy("stall", "PUT .*/images/") as proxy:
        cluster = start_nodes(**proxy.environment)
        verb = paint_verb(style_file, source, out, "--num-actors", 2)
        job = start_job(*verb, RAY_ADDRESS=cluster.greeting, **proxy.environment)
        proxy.wait_until_stalled(job)

        def actors() -> list[int]:
            return workers(cluster.process.pid, "BulkActor")

        wait_for("an actor on each node", job, lambda: len(actors()) == 2)
        assert cluster.order("kill", actors()[0]) == "killed"
        wait_for("the node's actor to go with it", job, lambda: len(actors()) == 1)
        proxy.go_on()
        said, _ = job.communicate(timeout=PATIENCE_S)
    assert job.returncode == 3, said
    assert outcome_of(out) == undisturbed


def test_a_reading_worker_is_lost(
    library: Path,
    style_file: Path,
    s3_bucket: str,
    fault_proxy: OpenProxy,
    start_job: StartJob,
    undisturbed: Outcome,
) -> None:
    source, out = put_library(library, s3_bucket), join(s3_bucket, "out")
    with fault_proxy("stall", r"GET .*/in/3/023\.jpg") as proxy:
        job = start_job(*paint_verb(style_file, source, out, "--stages", "separate"), **proxy.environment)
        proxy.wait_until_stalled(job)
        (victim,) = wait_for("the reader", job, lambda: workers(job.pid, "ReadStage"))
        os.kill(victim, signal.SIGKILL)
        proxy.go_on()
        said, _ = job.communicate(timeout=PATIENCE_S)
    assert job.returncode == 3, said
    assert outcome_of(out) == undisturbed
