"""An S3 service that misbehaves: the outcome is that of an undisturbed run, or the job stops and can be resumed."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from stylemill.storage import join
from tests.faults.conftest import OpenProxy, paint_verb, put_library
from tests.faults.outcome import Outcome, outcome_of
from tests.processes import PATIENCE_S

StartJob = Callable[..., subprocess.Popen[str]]


@pytest.mark.parametrize(
    ("mode", "share"),
    [
        pytest.param("busy", 0.2, marks=pytest.mark.slow),
        pytest.param("reset+lost-answer", 0.15, marks=pytest.mark.slow),
        pytest.param("half-body+bad-bit", 0.15, marks=pytest.mark.slow),
        pytest.param("hang", 0.02, marks=pytest.mark.slow),
    ],
)
def test_passing_faults_change_nothing(
    mode: str,
    share: float,
    library: Path,
    style_file: Path,
    s3_bucket: str,
    fault_proxy: OpenProxy,
    start_job: StartJob,
    undisturbed: Outcome,
) -> None:
    source, out = put_library(library, s3_bucket), join(s3_bucket, "out")
    with fault_proxy(mode, share) as proxy:
        job = start_job(*paint_verb(style_file, source, out), **proxy.environment)
        said, _ = job.communicate(timeout=PATIENCE_S)
    assert job.returncode == 3, said
    assert outcome_of(out) == undisturbed


@pytest.mark.slow
def test_lost_credentials_stop_the_job_and_the_same_command_resumes(
    library: Path,
    style_file: Path,
    s3_bucket: str,
    s3_service: dict[str, str],
    fault_proxy: OpenProxy,
    start_job: StartJob,
    undisturbed: Outcome,
) -> None:
    source, out = put_library(library, s3_bucket), join(s3_bucket, "out")
    with fault_proxy("credentials", 120) as proxy:
        job = start_job(*paint_verb(style_file, source, out), **proxy.environment)
        said, _ = job.communicate(timeout=PATIENCE_S)
    assert job.returncode == 1, said
    last = said.strip().splitlines()[-1]
    assert "InvalidAccessKeyId" in last, said
    assert "Traceback" not in said
    again = start_job(*paint_verb(style_file, source, out), **s3_service)
    said, _ = again.communicate(timeout=PATIENCE_S)
    assert again.returncode == 3, said
    assert outcome_of(out) == undisturbed
