"""Training whose storage stops in the middle: a bucket that falls silent at an exact moment, a disk that fills up."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stylemill.storage import Storage
from tests.faults.conftest import OpenProxy
from tests.faults.small_disk import make_room, small_disk
from tests.faults.training_jobs import complete_checkpoints, resumed_at, start_training
from tests.processes import Job, finish, kill_everything
from tests.training_runs import assert_same_run

SETTINGS: dict[str, Any] = {"steps": 8, "checkpoint_every": 1, "keep_checkpoints": 3}
"""Eight pictures (of the nine) in batches of four: an epoch ends at every second step, to the step."""
EIGHT = "content/[0-7].jpg"


@pytest.fixture(scope="module")
def expected(training_pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nothing disturbs, on local files."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    finish(start_training(str(training_pictures), out, content=training_pictures / EIGHT, **SETTINGS))
    return out


@pytest.mark.parametrize(
    ("mode", "step", "file", "resumes_at"),
    [
        pytest.param("stall-after", 4, "complete.json", 4, id="an epoch's end is recorded", marks=pytest.mark.slow),
        pytest.param("stall-after", 5, "complete.json", 5, id="one step after", marks=pytest.mark.slow),
        pytest.param("stall", 4, "complete.json", 3, id="all but the marker", marks=pytest.mark.slow),
        pytest.param("stall", 1, "metrics.parquet", 0, id="torn first checkpoint", marks=pytest.mark.slow),
    ],
)
def test_everything_is_killed_at_an_exact_moment(
    mode: str,
    step: int,
    file: str,
    resumes_at: int,
    training_pictures: Path,
    expected: Path,
    s3_bucket: str,
    s3_service: dict[str, str],
    fault_proxy: OpenProxy,
):
    storage, pictures, out = Storage(), f"{s3_bucket}/in", f"{s3_bucket}/out"
    for path in [training_pictures / "style.png", *(training_pictures / "content").iterdir()]:
        storage.write_bytes(f"{pictures}/{path.relative_to(training_pictures)}", path.read_bytes())

    def start(environment: dict[str, str]) -> Job:
        return start_training(pictures, out, content=f"{pictures}/{EIGHT}", environment=environment, **SETTINGS)

    with fault_proxy(mode, rf"PUT .*/step-{step:08d}\.start-000001/{file}") as proxy:
        job = start(proxy.environment)
        proxy.wait_until_stalled(job)
        kill_everything(job)
    said = finish(start(s3_service))
    assert resumed_at(said) == ([resumes_at] if resumes_at else [])
    assert_same_run(out, expected)


@pytest.fixture
def disk(tmp_path: Path, expected: Path) -> Iterator[Path]:
    """A disk with room for two checkpoints and a half."""
    newest = max((expected / "checkpoints").glob("step-*"))
    checkpoint_bytes = sum(file.stat().st_size for file in newest.iterdir())
    with small_disk(tmp_path, int(2.5 * checkpoint_bytes) + 100_000) as disk:
        yield disk


@pytest.mark.slow
@pytest.mark.long
def test_the_disk_fills_up(disk: Path, training_pictures: Path, expected: Path):
    out = disk / "out"

    def start() -> Job:
        return start_training(str(training_pictures), out, content=training_pictures / EIGHT, **SETTINGS)

    said = finish(start(), code=1)
    last = said.strip().splitlines()[-1]
    assert "No space left on device; make room and run the same command again to resume" in last
    stood = complete_checkpoints(out)
    assert 0 < len(stood) < 4 and max(stood) < SETTINGS["steps"]
    make_room(disk)
    assert resumed_at(finish(start())) == [max(stood)]
    assert_same_run(out, expected)
