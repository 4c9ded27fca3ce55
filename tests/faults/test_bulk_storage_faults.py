"""An S3 service that misbehaves: the outcome is that of an undisturbed run, or the job stops and can be resumed."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from pipeline.storage import Storage, join
from tests.faults.outcome import Outcome, outcome_of

StartJob = Callable[..., subprocess.Popen[str]]
FaultProxy = Callable[..., AbstractContextManager[dict[str, str]]]


@pytest.fixture(scope="module")
def undisturbed(
    library: Path,
    style_file: Path,
    tmp_path_factory: pytest.TempPathFactory,
    stylemill: Callable[..., subprocess.CompletedProcess[str]],
) -> Outcome:
    """The outcome of a run that nothing disturbs, on local files."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    done = stylemill(*_verb(style_file, library, out))
    assert done.returncode == 3, done.stderr
    return outcome_of(str(out))


def _verb(style: Path, source: object, out: object) -> list[object]:
    bounds = ["--storage.timeout-s", "3", "--storage.retry-deadline-s", "60"]
    return ["stylize", "--model", style, "--input", source, "--out", out, "--max-failed-fraction", "0", *bounds]


def _put_library(library: Path, bucket: str) -> str:
    source, storage = join(bucket, "in"), Storage()
    for path in library.rglob("*"):
        if path.is_file():
            storage.write_bytes(join(source, str(path.relative_to(library))), path.read_bytes())
    return source


@pytest.mark.parametrize(
    ("mode", "share"),
    [
        pytest.param("busy", 0.2, marks=pytest.mark.smoke),
        pytest.param("reset", 0.1, marks=pytest.mark.slow),
        pytest.param("lost-answer", 0.1, marks=pytest.mark.slow),
        pytest.param("half-body", 0.1, marks=pytest.mark.slow),
        pytest.param("hang", 0.02, marks=pytest.mark.slow),
    ],
)
def test_passing_faults_change_nothing(
    mode: str,
    share: float,
    library: Path,
    style_file: Path,
    s3_bucket: str,
    fault_proxy: FaultProxy,
    start_job: StartJob,
    undisturbed: Outcome,
) -> None:
    source, out = _put_library(library, s3_bucket), join(s3_bucket, "out")
    with fault_proxy(mode, share) as environment:
        job = start_job(*_verb(style_file, source, out), **environment)
        said, _ = job.communicate(timeout=240)
    assert job.returncode == 3, said
    assert outcome_of(out) == undisturbed


@pytest.mark.slow
def test_lost_credentials_stop_the_job_and_the_same_command_resumes(
    library: Path,
    style_file: Path,
    s3_bucket: str,
    s3_service: dict[str, str],
    fault_proxy: FaultProxy,
    start_job: StartJob,
    undisturbed: Outcome,
) -> None:
    source, out = _put_library(library, s3_bucket), join(s3_bucket, "out")
    with fault_proxy("credentials", 120) as environment:
        job = start_job(*_verb(style_file, source, out), **environment)
        said, _ = job.communicate(timeout=240)
    assert job.returncode == 1, said
    last = said.strip().splitlines()[-1]
    assert "InvalidAccessKeyId" in last
    assert "Traceback" not in said
    again = start_job(*_verb(style_file, source, out), **s3_service)
    said, _ = again.communicate(timeout=240)
    assert again.returncode == 3, said
    assert outcome_of(out) == undisturbed
