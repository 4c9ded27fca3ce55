"""Event files, read back by TensorBoard itself."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any

import pytest

from stylemill.errors import ConfigError
from stylemill.storage import Storage
from stylemill.training.tensorboard import EventFiles, check_tensorboard
from tests.drawn import image_bytes

event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")

COLUMNS = (
    "loss", "content_loss", "style_loss", "tv_loss", "grid_loss", "lattice_loss", "teacher_loss", "steady_loss",
    "photo_loss",
    "gradient_norm",
    "learning_rate", "data_wait_s",
)  # fmt: skip


def rows(last: int, start: int = 1) -> list[dict[str, Any]]:
    """Return rows of steps 1 to ``last``; the loss shows which start wrote the row."""
    common = dict.fromkeys(COLUMNS, 0.5) | {"images_per_s": 8.0, "peak_memory_bytes": 1 << 30, "skipped": False}
    return [common | {"step": step, "loss": start + step / 100} for step in range(1, last + 1)]


def open_files(folder: Path) -> EventFiles:
    return EventFiles(Storage(), str(folder), batch_size=4)


def read(folder: Path) -> Any:
    accumulator = event_accumulator.EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
    return accumulator.Reload()


def steps(folder: Path, tag: str = "loss/total") -> list[int]:
    return [event.step for event in read(folder).Scalars(tag)]


def test_all_metrics_of_all_steps_and_the_grids_are_written(tmp_path: Path):
    files = open_files(tmp_path)
    files.write(rows(2))
    files.add_grid(4, image_bytes(16, 24))
    files.write(rows(5))
    found = read(tmp_path)
    assert sorted(found.Tags()["scalars"]) == [
        "loss/content", "loss/grid", "loss/lattice", "loss/photo", "loss/steady", "loss/style", "loss/teacher",
        "loss/total", "loss/total variation",
        "pace/data wait s", "pace/images per s", "pace/peak memory bytes", "training/gradient norm",
        "training/learning rate",
    ]  # fmt: skip
    for tag in found.Tags()["scalars"]:
        assert [event.step for event in found.Scalars(tag)] == [1, 2, 3, 4, 5]
    assert [event.value for event in found.Scalars("loss/total")] == pytest.approx([1.01, 1.02, 1.03, 1.04, 1.05])
    (grid,) = found.Images("samples")
    assert (grid.step, grid.width, grid.height) == (4, 24, 16)


def test_times_follow_from_the_duration_of_steps(tmp_path: Path):
    open_files(tmp_path).write(rows(3))
    times_s = [event.wall_time for event in read(tmp_path).Scalars("loss/total")]
    assert [after - before for before, after in itertools.pairwise(times_s)] == pytest.approx([0.5, 0.5])


def test_a_resumed_run_writes_each_step_once(tmp_path: Path):
    killed = open_files(tmp_path)
    for last in (3, 6, 9):
        killed.write(rows(last))
    resumed = open_files(tmp_path)
    resumed.continue_after(6)
    for last in (8, 10):
        resumed.write(rows(last, start=2))
    assert steps(tmp_path) == list(range(1, 11))
    assert [int(event.value) for event in read(tmp_path).Scalars("loss/total")] == [1] * 6 + [2] * 4


def test_a_run_that_starts_over_removes_the_events_of_the_first_start(tmp_path: Path):
    open_files(tmp_path).write(rows(4))
    open_files(tmp_path).write(rows(2, start=2))
    assert [event.value for event in read(tmp_path).Scalars("loss/total")] == pytest.approx([2.01, 2.02])


def test_events_enabled_later_include_all_steps(tmp_path: Path):
    late = open_files(tmp_path)
    late.continue_after(4)
    late.write(rows(6))
    assert steps(tmp_path) == [1, 2, 3, 4, 5, 6]


def test_nothing_new_writes_nothing(tmp_path: Path):
    files = open_files(tmp_path)
    files.write(rows(3))
    before = sorted(tmp_path.iterdir())
    files.write(rows(3))
    assert sorted(tmp_path.iterdir()) == before


def test_null_metrics_are_omitted(tmp_path: Path):
    made = rows(3)
    made[1]["grid_loss"] = None
    open_files(tmp_path).write(made)
    assert steps(tmp_path, "loss/grid") == [1, 3]


def test_without_the_package_the_config_is_refused(monkeypatch: pytest.MonkeyPatch):
    check_tensorboard()
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ConfigError, match=r"stylemill\[tensorboard\]"):
        check_tensorboard()
