"""A node, or a reading worker, is lost in the middle of its work; the run completes as if nothing was.

A proxy holds back requests, so that the loss always hits work in flight.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stylemill.storage import join
from tests.conftest import ROOT
from tests.faults.conftest import OpenProxy, paint_verb, put_library
from tests.faults.outcome import Outcome, outcome_of
from tests.faults.processes import PATIENCE_S, wait_for, workers

pytestmark = pytest.mark.slow

StartJob = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def two_nodes(s3_service: dict[str, str]) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Return a function that starts a cluster of two nodes of one CPU each, whose workers have this environment."""
    clusters: list[subprocess.Popen[str]] = []

    def start(**environment: str) -> subprocess.Popen[str]:
        cluster = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.two_nodes"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        )
        clusters.append(cluster)
        return cluster

    yield start
    for cluster in clusters:
        assert cluster.stdin is not None
        cluster.stdin.close()
        cluster.wait(timeout=60)


def test_a_node_of_two_is_lost(
    library: Path,
    style_file: Path,
    s3_bucket: str,
    fault_proxy: OpenProxy,
    start_job: StartJob,
    two_nodes: Callable[..., subprocess.Popen[str]],
    undisturbed: Outcome,
) -> None:
    source, out = put_library(library, s3_bucket), join(s3_bucket, "out")
    with fault_proxy("stall", "PUT .*/images/") as proxy:
        cluster = two_nodes(**proxy.environment)
        assert cluster.stdin is not None and cluster.stdout is not None
        address = cluster.stdout.readline().strip()
        job = start_job(*paint_verb(style_file, source, out), RAY_ADDRESS=address, **proxy.environment)
        proxy.wait_until_stalled(job)
        wait_for("an actor on each node", job, lambda: len(workers(cluster.pid, "BulkActor")) == 2)
        cluster.stdin.write("kill\n")
        cluster.stdin.flush()
        assert cluster.stdout.readline() == "killed\n"
        wait_for("the node's actor to go with it", job, lambda: len(workers(cluster.pid, "BulkActor")) == 1)
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
