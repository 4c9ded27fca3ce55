"""What fault tests share: jobs as processes of their own, each with a cluster of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from tests.conftest import ROOT, command_line
from tests.drawn import image_bytes
from tests.integration.conftest import s3_bucket, s3_service

__all__ = ["s3_bucket", "s3_service"]

NUM_IMAGES = 48


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures, and three files that are none; nobody may change it."""
    folder = tmp_path_factory.mktemp("library") / "in"
    for number in range(NUM_IMAGES):
        path = folder / f"{number % 5}" / f"{number:03d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image_bytes(96 + number % 7, 128 - number % 5, number))
    (folder / "cut.jpg").write_bytes(image_bytes(90, 90, 99)[:400])
    (folder / "notes.txt").write_text("Rain on Sunday.\n" * 10)
    (folder / "empty.png").write_bytes(b"")
    return folder


@pytest.fixture
def start_job() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Return a function that starts ``stylemill`` in a process group of its own; what is left of it is killed."""
    jobs: list[subprocess.Popen[str]] = []

    def start(*arguments: object, **environment: str) -> subprocess.Popen[str]:
        job = subprocess.Popen(
            command_line(*arguments),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            start_new_session=True,
        )
        jobs.append(job)
        return job

    yield start
    for job in jobs:
        kill_group(job)


def kill_group(job: subprocess.Popen[str]) -> None:
    """SIGKILL a job and every process of its group."""
    try:
        os.killpg(job.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    job.wait()


@pytest.fixture
def fault_proxy(s3_service: dict[str, str]) -> Callable[..., AbstractContextManager[dict[str, str]]]:
    """Return a function that puts a misbehaving proxy before the S3 service: the environment that leads to it."""

    @contextmanager
    def open_proxy(mode: str, share: float, seed: int = 0) -> Iterator[dict[str, str]]:
        command = [sys.executable, "-m", "tests.faults.fault_proxy", s3_service["AWS_ENDPOINT_URL"], mode, str(share)]
        proxy = subprocess.Popen([*command, str(seed)], stdout=subprocess.PIPE, text=True, cwd=ROOT)
        try:
            assert proxy.stdout is not None
            yield {**s3_service, "AWS_ENDPOINT_URL": proxy.stdout.readline().strip()}
        finally:
            proxy.kill()
            proxy.wait()

    return open_proxy
