"""The output's disk is full: the job stops, says so, and the same command goes on when there is room."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.conftest import paint_verb
from tests.faults.outcome import Outcome, outcome_of
from tests.faults.processes import PATIENCE_S

pytestmark = pytest.mark.slow

ROOM_FOR_SOME = 150_000
"""Bytes for the results of some of the sources, beside the run's copy of its model."""


@pytest.fixture
def small_disk(tmp_path: Path, style_file: Path) -> Iterator[Path]:
    """A disk of its own that fills up in the middle of a run."""
    disk = tmp_path / "disk"
    disk.mkdir()
    size = style_file.stat().st_size + ROOM_FOR_SOME
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "stylemill-test", str(disk)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"may not mount a small disk: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_the_job_stops_and_goes_on_when_there_is_room(
    library: Path,
    style_file: Path,
    start_job: Callable[..., subprocess.Popen[str]],
    undisturbed: Outcome,
    small_disk: Path,
) -> None:
    verb = paint_verb(style_file, library, small_disk / "out")
    job = start_job(*verb)
    said, _ = job.communicate(timeout=PATIENCE_S)
    assert job.returncode == 1, said
    assert "No space left on device" in said.strip().splitlines()[-1]
    assert "Traceback" not in said
    assert 0 < len([*small_disk.glob("out/images/*/*/*.jpg")]) < 48
    assert not [*small_disk.glob("out/manifests/*/_SUCCESS")]
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    again = start_job(*verb)
    said, _ = again.communicate(timeout=PATIENCE_S)
    assert again.returncode == 3, said
    assert outcome_of(str(small_disk / "out")) == undisturbed
