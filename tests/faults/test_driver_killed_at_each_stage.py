"""The driver is killed at a known place of the commit protocol; the same command finishes the run as if nothing was.

The places are exact: a proxy holds back the very request that a stage is about to make (or its answer), and the
driver gets SIGKILL while it waits.
"""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from stylemill.storage import Storage, join
from tests.faults.conftest import OpenProxy, paint_verb, put_library
from tests.faults.outcome import Outcome, outcome_of
from tests.processes import PATIENCE_S

StartJob = Callable[..., subprocess.Popen[str]]

EVERYTHING_WAS_DONE = "resumed: 51 images had been finished before"

STAGES = {
    "no plan yet": ("stall", r"PUT .*/plan/shard-", None),
    "planned, but not to the end": ("stall", r"PUT .*/plan/_COMPLETE", None),
    "images, but no rows": ("stall", r"PUT .*/pending/", None),
    "rows, but no part": ("stall", r"PUT .*/manifests/.*/part-", EVERYTHING_WAS_DONE),
    "the last part, but no _SUCCESS": ("stall", r"PUT .*/runs/.*/parts/part-", EVERYTHING_WAS_DONE),
    "_SUCCESS on its way": ("stall", r"PUT .*/_SUCCESS", EVERYTHING_WAS_DONE),
    "_SUCCESS there, but not known": ("stall-after", r"PUT .*/_SUCCESS", "already committed"),
}


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_the_same_command_finishes_the_run(
    stage: str,
    library: Path,
    style_file: Path,
    s3_bucket: str,
    s3_service: dict[str, str],
    fault_proxy: OpenProxy,
    start_job: StartJob,
    undisturbed: Outcome,
) -> None:
    mode, pattern, says = STAGES[stage]
    source, out = put_library(library, s3_bucket), join(s3_bucket, "out")
    with fault_proxy(mode, pattern) as proxy:
        job = start_job(*paint_verb(style_file, source, out), **proxy.environment)
        proxy.wait_until_stalled(job)
        job.send_signal(signal.SIGKILL)
        job.wait()
    is_committed = any(found.key.endswith("/_SUCCESS") for found in Storage().list_objects(join(out, "manifests")))
    assert is_committed == (mode == "stall-after")
    again = start_job(*paint_verb(style_file, source, out), **s3_service)
    said, _ = again.communicate(timeout=PATIENCE_S)
    assert again.returncode == (0 if is_committed else 3), said
    assert says is None or says in said
    assert outcome_of(out) == undisturbed
    assert not [found.key for found in Storage().list_objects(join(out, "runs")) if "/pending/" in found.key]
