from __future__ import annotations

import io
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stylemill.errors import CheckpointError
from stylemill.training.layout import METRICS_SCHEMA, metrics_from_parquet, metrics_to_parquet

ROW: dict[str, Any] = {
    "step": 1, "loss": 1.5, "content_loss": 0.5, "style_loss": 0.25, "tv_loss": 0.125, "grid_loss": 0.0,
    "lattice_loss": 0.0, "teacher_loss": None, "steady_loss": None, "photo_loss": None,
    "gradient_norm": float("inf"), "learning_rate": 1e-3, "skipped": True,
    "images_per_s": 2.0, "data_wait_s": 0.0, "peak_memory_bytes": 1 << 30,
}  # fmt: skip


def test_rows_read_back_as_written_with_or_without_a_teacher():
    rows = [ROW, ROW | {"step": 2, "teacher_loss": 0.75}]
    assert metrics_from_parquet(metrics_to_parquet(rows)) == rows


@pytest.mark.parametrize("rows", [[], [ROW], [ROW | {"teacher_loss": 0.75}]])
def test_the_types_do_not_depend_on_the_rows(rows):
    assert pq.read_schema(io.BytesIO(metrics_to_parquet(rows))).equals(METRICS_SCHEMA)


def test_missing_nullable_columns_are_none():
    older = pa.Table.from_pylist([ROW], METRICS_SCHEMA).drop_columns(["teacher_loss", "grid_loss", "lattice_loss"])
    sink = io.BytesIO()
    pq.write_table(older, sink)
    (row,) = metrics_from_parquet(sink.getvalue())
    assert row == ROW | {"grid_loss": None, "lattice_loss": None}


@pytest.mark.parametrize("column", ["step", "learning_rate", "skipped"])
def test_missing_required_columns_are_refused(column):
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([ROW], METRICS_SCHEMA).drop_columns([column]), sink)
    with pytest.raises(CheckpointError, match=column):
        metrics_from_parquet(sink.getvalue())


def test_bytes_that_are_not_parquet_are_refused():
    with pytest.raises(CheckpointError, match="cannot be read"):
        metrics_from_parquet(b"rows")
