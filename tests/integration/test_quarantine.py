"""Which image is blamed when a worker dies."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import ray

from stylemill.manifest.commit import read_pending, read_shard
from stylemill.storage import Storage
from stylemill.storage.sources import find_sources
from stylemill.style_model import to_bytes
from stylemill.stylizing.config import StylizeConfig
from stylemill.stylizing.fused_actor import BulkActor
from stylemill.stylizing.gpu_actors import PaintStage, ReadStage
from stylemill.stylizing.gpu_actors import _samples as samples_of
from stylemill.stylizing.identity import BulkJob
from stylemill.stylizing.plan import plan_sources
from stylemill.stylizing.preflight import prepare
from stylemill.stylizing.ray_tracker import RayTracker, start_tracker
from stylemill.stylizing.run import stylize
from tests.drawn import image_bytes, style_model
from tests.integration.conftest import fill, rows_of

KEYS = [f"{number}.jpg" for number in range(6)]


@pytest.fixture
def work(local_ray: str, style_file: Path, tmp_path: Path) -> tuple[BulkActor, Any, pa.Table]:
    """The actor's object in this process, the run's tracker, and one block."""
    library = fill(tmp_path / "in", {key: image_bytes(20, 20, int(key[0])) for key in KEYS})
    run = prepare(StylizeConfig(model=(str(style_file),), input=str(library), out=str(tmp_path / "out")))
    storage, tracker = Storage(), RayTracker(start_tracker())
    list(
        plan_sources(
            storage, run.layout, lambda after, twins: map(twins.add, find_sources(storage, str(library), after))
        )
    )
    block = read_shard(storage, run.layout, 0).append_column("shard", pa.array([0] * len(KEYS), pa.int64()))
    job = BulkJob(config=run.config, identity=run.identity, layout=run.layout, lease_token=1)
    return BulkActor(job, tracker), tracker, block


def in_flight_while_painting(actor: BulkActor, tracker: Any, block: pa.Table) -> dict[str, list[str]]:
    """Do a block with slow writes; return for each image which ones would be blamed if it killed the worker."""
    painter, writer, seen = actor._painter, actor._writer, {}

    def paint(sample: Any) -> Any:
        seen[sample.key] = sorted(tracker.unfinished(KEYS))
        return painter(sample)

    def write(sample: Any) -> Any:
        time.sleep(0.1)
        return writer(sample)

    paint.num_pixels = painter.num_pixels  # type: ignore[attr-defined]
    actor._painter, actor._writer = paint, write  # type: ignore[assignment]
    actor(block)
    return seen


def test_without_a_death_writes_overlap_with_painting(work: tuple[BulkActor, Any, pa.Table]):
    seen = in_flight_while_painting(*work)
    assert any(len(keys) > 1 for keys in seen.values())
    assert {row["attempt"] for row in rows(work[0])} == {1}


def test_after_a_death_only_the_image_being_painted_can_be_blamed(work: tuple[BulkActor, Any, pa.Table]):
    tracker = work[1]
    for key in ("1.jpg", "2.jpg"):  # these were in flight when a worker died
        tracker.begin_and_wait([key])
    seen = in_flight_while_painting(*work)
    assert seen == {key: [key] if key > "1.jpg" else sorted({key, "1.jpg", "2.jpg"}) for key in KEYS} | {
        "1.jpg": ["1.jpg", "2.jpg"]
    }
    assert {row["key"]: row["attempt"] for row in rows(work[0])} == {
        key: 2 if key in ("1.jpg", "2.jpg") else 1 for key in KEYS
    }


def test_an_image_that_was_being_painted_at_two_deaths_is_given_up(work: tuple[BulkActor, Any, pa.Table]):
    tracker = work[1]
    for key in ("1.jpg", "2.jpg", "2.jpg"):
        tracker.begin_and_wait([key])
    seen = in_flight_while_painting(*work)
    assert sorted(seen) == [key for key in KEYS if key != "2.jpg"]
    found = {row["key"]: row for row in rows(work[0])}
    assert {key for key, row in found.items() if row["status"] != "ok"} == {"2.jpg"}
    assert (found["2.jpg"]["error_type"], found["2.jpg"]["attempt"]) == ("WorkerDied", 3)
    assert tracker.unfinished(KEYS) == {}


def test_after_a_death_before_anything_was_begun_a_source_is_begun_before_it_is_read(
    work: tuple[BulkActor, Any, pa.Table],
):
    """An image that kills its worker while it is read ahead is blamed for the next death, and no other is."""
    actor, tracker, block = work
    assert not tracker.start_block(KEYS[0])
    read, seen = actor._reader, {}

    def watched(planned: Any) -> Any:
        seen[planned["key"]] = sorted(tracker.unfinished(KEYS))
        return read(planned)

    actor._reader = watched  # type: ignore[assignment]
    actor(block)
    assert seen == {key: [key] for key in KEYS}
    assert {row["attempt"] for row in rows(actor)} == {1}
    assert not tracker.start_block(KEYS[0])  # the block was done


@pytest.fixture
def stages(work: tuple[BulkActor, Any, pa.Table]) -> tuple[PaintStage, Any, pa.Table, pa.Table]:
    """The painting stage's object, the tracker, a block from the reading stage, and the planned block."""
    actor, tracker, block = work
    job = replace(actor._job, config=replace(actor._job.config, stages="separate"))
    read = pa.concat_tables(ReadStage(job, tracker)(block))
    return PaintStage(job, tracker), tracker, read, block


def started_while_painting(stage: PaintStage, tracker: Any, block: pa.Table) -> tuple[dict[str, list[str]], list[Any]]:
    """Paint a block; return which images would be blamed for a death at each, and the painted samples."""
    painter, seen = stage._painter.paint_all, {}

    def paint(samples: list[Any]) -> list[Any]:
        for sample in samples:
            seen[sample.key] = sorted(tracker.unfinished(KEYS))
        return painter(samples)

    stage._painter.paint_all = paint  # type: ignore[method-assign]
    return seen, [sample for out in stage(block) for sample in samples_of(out)]


def test_a_painting_stage_without_a_death_paints_the_whole_block(stages: tuple[PaintStage, Any, pa.Table, pa.Table]):
    stage, tracker, read, _ = stages
    seen, painted = started_while_painting(stage, tracker, read)
    assert seen == dict.fromkeys(KEYS, KEYS)
    assert [(sample.planned["attempt"], sorted(sample.painted)) for sample in painted] == [(1, ["waves"])] * 6
    assert tracker.unfinished(KEYS) == {}


def test_a_painting_stage_goes_one_by_one_after_a_death_and_gives_up_after_two(
    stages: tuple[PaintStage, Any, pa.Table, pa.Table],
):
    stage, tracker, read, _ = stages
    for key in (*KEYS, "2.jpg"):  # all were being painted at the first death, one alone at the second
        tracker.begin_and_wait([key])
    tracker.painted(["0.jpg", "1.jpg"])
    seen, painted = started_while_painting(stage, tracker, read)
    waiting = {key: [later for later in ["2.jpg", *KEYS[3:]] if later == "2.jpg" or later >= key] for key in KEYS}
    assert {key: sorted({key, *waiting[key]}) for key in KEYS} == seen
    assert {sample.key: sample.failure and sample.failure.error_type for sample in painted} == {
        key: "WorkerDied" if key == "2.jpg" else None for key in KEYS
    }
    assert {sample.key: sample.planned["attempt"] for sample in painted} == {
        key: {"0": 1, "1": 1, "2": 3}.get(key[0], 2) for key in KEYS
    }


def rows(actor: BulkActor) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = read_pending(Storage(), actor._job.layout, 0).to_pylist()
    return found


def test_an_image_that_is_stuck_becomes_a_row_and_slow_work_is_no_stall(
    local_ray: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Paint with one image far above the limit, while Ray Data's own check would end the run after a second."""
    monkeypatch.setattr(ray.data.DataContext.get_current(), "execution_no_progress_timeout_s", 1)
    style = tmp_path / "slow.safetensors"
    style.write_bytes(to_bytes(style_model("slow", width=1.0)))
    small = {f"{number}.jpg": image_bytes(40, 40, number) for number in range(5)}
    library = fill(tmp_path / "in", {"big.jpg": image_bytes(2200, 2200, 1), **small})
    config = StylizeConfig(
        model=(str(style),),
        input=str(library),
        out=str(tmp_path / "out"),
        paint_timeout_s=2.5,
        num_actors=1,
        runner="ray",
    )
    rows = {row["key"]: row for row in rows_of(stylize(prepare(config)))}
    assert {key for key, row in rows.items() if row["status"] != "ok"} == {"big.jpg"}
    assert (rows["big.jpg"]["error_type"], rows["big.jpg"]["attempt"]) == ("PaintTimeout", 2)
    assert "2 s" in rows["big.jpg"]["error"] and "--paint-timeout-s" in rows["big.jpg"]["error"]
