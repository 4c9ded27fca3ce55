"""One row per step: ``metrics.parquet``."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import CheckpointError

METRICS_SCHEMA = pa.schema(
    [
        pa.field("step", pa.int64(), nullable=False),
        pa.field("loss", pa.float64()),
        pa.field("content_loss", pa.float64()),
        pa.field("style_loss", pa.float64()),
        pa.field("tv_loss", pa.float64()),
        pa.field("grid_loss", pa.float64()),
        pa.field("teacher_loss", pa.float64()),
        pa.field("gradient_norm", pa.float64()),
        pa.field("learning_rate", pa.float64(), nullable=False),
        pa.field("skipped", pa.bool_(), nullable=False),
        pa.field("images_per_s", pa.float32()),
        pa.field("data_wait_s", pa.float32()),
        pa.field("peak_memory_bytes", pa.int64()),
    ]
)
"""``step`` counts from 1. Times, rate and memory are this machine's and this attempt's; the rest is reproducible.
``teacher_loss`` is null without a teacher. Terms are not weighted, ``loss`` is their weighted sum."""

Row = Mapping[str, Any]


def metrics_to_parquet(rows: Sequence[Row]) -> bytes:
    """Return rows as the bytes of a Parquet file."""
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows), schema=METRICS_SCHEMA), sink, compression="zstd")
    return sink.getvalue()


def metrics_from_parquet(data: bytes) -> list[dict[str, Any]]:
    """Return the rows in the bytes of a Parquet file; columns that an older version did not write are None.

    Raises:
        CheckpointError: it is no Parquet file, or lacks what every step has.
    """
    try:
        table = pq.read_table(pa.BufferReader(data))
    except (OSError, pa.ArrowException) as error:
        raise CheckpointError(f"its metrics cannot be read ({error})") from error
    lacking = [column for column in METRICS_SCHEMA if column.name not in table.column_names]
    required = [column.name for column in lacking if not column.nullable]
    if required:
        raise CheckpointError(f"its metrics have no column {required[0]}")
    unknown = {column.name: None for column in lacking}
    return [unknown | row for row in table.to_pylist()]
