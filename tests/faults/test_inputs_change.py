"""The model is exchanged, and sources vanish, while a run is under way."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.conftest import paint_verb
from tests.faults.outcome import Outcome, outcome_of
from tests.processes import PATIENCE_S, wait_for, workers

pytestmark = pytest.mark.slow


def test_a_run_keeps_its_model_and_misses_what_vanished(
    library: Path,
    style_file: Path,
    second_style_file: Path,
    start_job: Callable[..., subprocess.Popen[str]],
    stylemill: Callable[..., subprocess.CompletedProcess[str]],
    undisturbed: Outcome,
    tmp_path: Path,
) -> None:
    style, source, out = tmp_path / "style.safetensors", tmp_path / "in", tmp_path / "out"
    shutil.copy(style_file, style)
    shutil.copytree(library, source)
    job = start_job(*paint_verb(style, source, out, "--run-id", "mine"))
    actors = wait_for("actors", job, lambda: workers(job.pid, "BulkActor"))
    for actor in actors:  # none has loaded the model or read a source yet: Python itself takes longer to start
        os.kill(actor, signal.SIGSTOP)
    assert not [*out.glob("images/*/*/*.jpg")]
    shutil.copy(second_style_file, style)
    vanished = [source / "4" / "044.jpg", source / "0" / "000.jpg"]
    for path in vanished:
        path.unlink()
    for actor in actors:
        os.kill(actor, signal.SIGCONT)
    said, _ = job.communicate(timeout=PATIENCE_S)
    assert job.returncode == 3, said
    keys = {(str(path.relative_to(source)), "waves") for path in vanished}
    assert outcome_of(str(out)) == {**undisturbed, **dict.fromkeys(keys, ("failed", "SourceVanished", None))}
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    refused = stylemill(*paint_verb(style, source, out, "--run-id", "mine"))
    assert refused.returncode == 2
    assert "model waves" in refused.stderr and "model dunes" in refused.stderr
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()} == before
