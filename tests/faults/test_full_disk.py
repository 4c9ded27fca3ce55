"""The output's disk is full: the job stops, says so, and the same command goes on when there is room."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.conftest import paint_verb
from tests.faults.outcome import Outcome, outcome_of
from tests.faults.small_disk import make_room, small_disk
from tests.processes import PATIENCE_S

pytestmark = pytest.mark.slow

ROOM_FOR_SOME = 150_000
"""Bytes for the results of some of the sources, beside the run's copy of its model."""


@pytest.fixture
def disk(tmp_path: Path, style_file: Path) -> Iterator[Path]:
    """A disk that fills up in the middle of a run."""
    with small_disk(tmp_path, style_file.stat().st_size + ROOM_FOR_SOME) as disk:
        yield disk


def test_the_job_stops_and_goes_on_when_there_is_room(
    library: Path,
    style_file: Path,
    start_job: Callable[..., subprocess.Popen[str]],
    undisturbed: Outcome,
    disk: Path,
) -> None:
    verb = paint_verb(style_file, library, disk / "out")
    job = start_job(*verb)
    said, _ = job.communicate(timeout=PATIENCE_S)
    assert job.returncode == 1, said
    assert "No space left on device" in said.strip().splitlines()[-1]
    assert "Traceback" not in said
    assert 0 < len([*disk.glob("out/images/*/*/*.jpg")]) < 48
    assert not [*disk.glob("out/manifests/*/_SUCCESS")]
    make_room(disk)
    again = start_job(*verb)
    said, _ = again.communicate(timeout=PATIENCE_S)
    assert again.returncode == 3, said
    assert outcome_of(str(disk / "out")) == undisturbed
