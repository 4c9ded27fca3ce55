"""One row per step: ``metrics.parquet``."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

METRICS_SCHEMA = pa.schema(
    [
        pa.field("step", pa.int64(), nullable=False),
        pa.field("loss", pa.float64()),
        pa.field("content_loss", pa.float64()),
        pa.field("style_loss", pa.float64()),
        pa.field("tv_loss", pa.float64()),
        pa.field("grid_loss", pa.float64()),
        pa.field("gradient_norm", pa.float64()),
        pa.field("learning_rate", pa.float64(), nullable=False),
        pa.field("skipped", pa.bool_(), nullable=False),
        pa.field("images_per_s", pa.float32()),
        pa.field("data_wait_s", pa.float32()),
        pa.field("peak_memory_bytes", pa.int64()),
    ]
)
"""``step`` counts from 1. Times, rate and memory are this machine's and this attempt's; the rest is reproducible."""

Row = Mapping[str, Any]


def metrics_to_parquet(rows: Sequence[Row]) -> bytes:
    """Return rows as the bytes of a Parquet file."""
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows), schema=METRICS_SCHEMA), sink, compression="zstd")
    return sink.getvalue()


def metrics_from_parquet(data: bytes) -> list[dict[str, Any]]:
    """Return the rows in the bytes of a Parquet file."""
    rows: list[dict[str, Any]] = pq.read_table(pa.BufferReader(data)).to_pylist()
    return rows
