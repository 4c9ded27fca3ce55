"""Estimates: counting, workers, and the rate of earlier runs."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stylemill.config import from_mapping, to_yaml
from stylemill.manifest.commit import Success, commit_part, write_shard, write_success
from stylemill.manifest.layout import RunLayout
from stylemill.manifest.schema import PLAN_SCHEMA, SCHEMA_VERSION, make_table
from stylemill.storage import Storage
from stylemill.stylizing.config import StylizeConfig
from stylemill.submission.estimate import (
    Rate,
    Workers,
    Workload,
    choose_workers,
    count_sources,
    estimate,
    measured_rate,
)
from stylemill.training.config import TrainConfig
from tests.committed import failed_row, paint, planned, row


def bulk(tmp_path: Path, **fields) -> StylizeConfig:
    places = {"model": ("m",), "input": str(tmp_path / "in"), "out": str(tmp_path / "out")}
    return from_mapping(StylizeConfig, {**places, **fields})


def training(tmp_path: Path, **fields) -> TrainConfig:
    return TrainConfig(style_image="s", content=(str(tmp_path / "in"),), out=str(tmp_path / "out"), **fields)


@pytest.fixture
def library(tmp_path: Path) -> Path:
    for number in range(7):
        path = tmp_path / "in" / str(number % 2) / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 1000)
    return tmp_path / "in"


def test_counting(tmp_path: Path, library: Path):
    found = count_sources(bulk(tmp_path, model=("a", "b")))
    assert found == Workload(num_sources=7, num_bytes=7000, num_images=14, num_styles=2)
    work = count_sources(training(tmp_path, steps=10, batch_size=3))
    assert work == Workload(num_sources=7, num_bytes=7000, num_images=30)


def test_time_and_hours():
    work = Workload(num_sources=36_000, num_bytes=0, num_images=72_000)
    found = estimate(work, Rate(images_per_s=4.0, source=""), Workers(count=5, units_each=2, unit="CPU"))
    assert (found.wall_s, found.unit_hours) == (3600.0, 10.0)


def test_workers_are_what_the_config_says_and_what_fits(tmp_path: Path):
    machines = [{"CPU": 4.0, "memory": 5 * 2**30, "GPU": 1.0}, {"CPU": 4.0, "memory": 64 * 2**30}]
    assert choose_workers(bulk(tmp_path), machines).count == 2 + 4  # 2 GiB each
    assert choose_workers(bulk(tmp_path, num_actors=3), machines).count == 3
    assert choose_workers(bulk(tmp_path, threads_per_actor=3), machines) == Workers(count=2, units_each=3, unit="CPU")
    assert choose_workers(bulk(tmp_path, device="cuda"), machines) == Workers(count=1, units_each=1, unit="GPU")
    assert choose_workers(bulk(tmp_path), []).count == 1
    assert choose_workers(training(tmp_path, num_workers="2"), machines) == Workers(count=2, units_each=4, unit="CPU")
    assert choose_workers(training(tmp_path, num_workers="1:4", cpus_per_worker=3), machines).count == 2


def commit_timed_run(out: str) -> None:
    layout, storage = RunLayout(out=out, run_id="r1"), Storage()
    times = {"decode_ms": 20.0, "stylize_ms": 160.0, "encode_ms": 20.0}
    write_shard(storage, layout, 0, make_table([planned(key) for key in "abc"], PLAN_SCHEMA))
    paint(storage, layout, 0, [row(layout, "a", **times), row(layout, "b", **times), failed_row(layout, "c")])
    part = commit_part(storage, layout, 0, ["waves"])
    assert part is not None
    success = Success(
        run_id="r1", input="/in", fingerprint="f", parent_run_id=None, schema_version=SCHEMA_VERSION, styles=[],
        num_sources=3, counts={}, parts=[part], finished_at="2026-03-01T00:00:00+00:00",
    )  # fmt: skip
    write_success(storage, layout, success)


def test_the_rate_of_an_earlier_bulk_run(tmp_path: Path):
    assert measured_rate(bulk(tmp_path)) is None
    commit_timed_run(str(tmp_path / "out"))
    on_cpu, on_gpu = measured_rate(bulk(tmp_path)), measured_rate(bulk(tmp_path, device="cuda"))
    assert on_cpu is not None and on_cpu.images_per_s == pytest.approx(5.0) and "2 images of run r1" in on_cpu.source
    assert on_gpu is not None and on_gpu.images_per_s == pytest.approx(6.25)


def test_the_rate_of_an_earlier_training_run(tmp_path: Path):
    assert measured_rate(training(tmp_path)) is None
    out = tmp_path / "out"
    out.mkdir()
    pq.write_table(pa.table({"images_per_s": pa.array([1.0, 8.0, 9.0], pa.float32())}), out / "metrics.parquet")
    (out / "config.yaml").write_text(to_yaml(training(tmp_path, num_workers="2")))
    rate = measured_rate(training(tmp_path, num_workers="1"))
    assert rate is not None and rate.images_per_s == pytest.approx(4.0)
