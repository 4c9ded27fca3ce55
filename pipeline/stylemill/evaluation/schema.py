"""The table of measurements that an evaluation writes: schema, location, reading and writing.

It has one row per image and model.
"""

from __future__ import annotations

from typing import Final

import pyarrow as pa

from stylemill.evaluation.config import METRICS
from stylemill.manifest.schema import from_parquet, to_parquet
from stylemill.storage import Storage, join

EVALUATION_SCHEMA: Final = pa.schema(
    [
        pa.field("model", pa.string(), nullable=False),
        pa.field("model_sha256", pa.string(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("stratum", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("error_type", pa.string()),
        pa.field("error", pa.string()),
        pa.field("width_px", pa.int32()),
        pa.field("height_px", pa.int32()),
        *(pa.field(name, pa.float64()) for name in METRICS),
        pa.field("style_loss_by_layer", pa.list_(pa.float64())),
        pa.field("palette", pa.list_(pa.float64())),
        pa.field("source_palette", pa.list_(pa.float64())),
        pa.field("strokes", pa.list_(pa.float64())),
        pa.field("source_strokes", pa.list_(pa.float64())),
        pa.field("picture_uri", pa.string()),
        pa.field("source_picture_uri", pa.string()),
        pa.field("judge", pa.string(), nullable=False),
    ]
)
"""``model`` is NAME-VERSION. ``status`` is ok, failed or skipped. ``judge`` is the digest of loss network, style image,
weights and size; only rows with the same digest can be compared. ``palette`` is the mean CIELAB colour of the picture,
``strokes`` the logarithm of the energy of its details of 1, 2, 4 and 8 px."""

_LATER = ("crop_difference", "palette", "source_palette", "strokes", "source_strokes")
"""Columns that tables of early versions lack."""


def model_label(name: str, version: str) -> str:
    """Return the value of the column ``model`` for a version of a style."""
    return f"{name}-{version}"


def table_uri(out: str) -> str:
    """Return the location of the table of an evaluation."""
    return join(out, "evaluation.parquet")


def read_measurements(storage: Storage, out: str) -> pa.Table:
    """Return the table of an evaluation.

    Args:
        storage: storage of the evaluation.
        out: output location of the evaluation.

    Raises:
        ObjectNotFound: the table does not exist.
        ValueError: the file is not Parquet, or has other columns.
        StorageError: storage failed beyond its retries.
    """
    return from_parquet(storage.read_bytes(table_uri(out)), EVALUATION_SCHEMA, later=_LATER)


def write_measurements(storage: Storage, out: str, table: pa.Table) -> None:
    """Write the table of an evaluation.

    Raises:
        StorageError: storage failed beyond its retries.
    """
    storage.write_bytes(table_uri(out), to_parquet(table))
