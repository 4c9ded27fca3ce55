"""Files of a training run under OUT: their locations, the table ``metrics.parquet``, and the list ``left_out.json``.

``metrics.parquet`` has one row per step; ``left_out.json`` lists the content images that cannot be decoded.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stylemill.errors import CheckpointError, ImageError, NotAnImage, ObjectNotFound
from stylemill.manifest.schema import read_parquet
from stylemill.storage import Storage, join


@dataclass(frozen=True)
class TrainLayout:
    """Locations of one training run.

    Args:
        out: output location, resolved.
    """

    out: str

    @property
    def style_uri(self) -> str:
        """The final style model."""
        return join(self.out, "style.safetensors")

    @property
    def checkpoints_uri(self) -> str:
        """Folder of the checkpoints."""
        return join(self.out, "checkpoints")

    @property
    def lease_uri(self) -> str:
        """Prefix of the lease objects; only the holder of the lease trains."""
        return join(self.checkpoints_uri, "lease")

    @property
    def config_uri(self) -> str:
        """The run's config as YAML, readable by ``--config``."""
        return join(self.out, "config.yaml")

    @property
    def identity_uri(self) -> str:
        """The run's identity as JSON: the settings that decide the weights, with digests of the files they name."""
        return join(self.checkpoints_uri, "run.json")

    @property
    def loss_weights_uri(self) -> str:
        """Source, digest and licence of the loss network's weights, as JSON; absent for the pyramid."""
        return join(self.checkpoints_uri, "loss-weights.json")

    @property
    def content_uri(self) -> str:
        """The frozen content listing, as JSON."""
        return join(self.checkpoints_uri, "content.json")

    @property
    def metrics_uri(self) -> str:
        """One row per step."""
        return join(self.out, "metrics.parquet")

    @property
    def left_out_uri(self) -> str:
        """The content images that cannot be decoded, as JSON; absent if there are none."""
        return join(self.out, "left_out.json")

    @property
    def tensorboard_uri(self) -> str:
        """Folder of the event files that ``--tensorboard`` writes."""
        return join(self.out, "tensorboard")

    @property
    def report_uri(self) -> str:
        """The run's HTML page."""
        return join(self.out, "report", "index.html")

    def sample_uri(self, step: int) -> str:
        """One sample grid."""
        return join(self.out, "samples", f"step-{step:06d}.jpg")


METRICS_SCHEMA = pa.schema(
    [
        pa.field("step", pa.int64(), nullable=False),
        pa.field("loss", pa.float64()),
        pa.field("content_loss", pa.float64()),
        pa.field("style_loss", pa.float64()),
        pa.field("tv_loss", pa.float64()),
        pa.field("grid_loss", pa.float64()),
        pa.field("lattice_loss", pa.float64()),
        pa.field("teacher_loss", pa.float64()),
        pa.field("steady_loss", pa.float64()),
        pa.field("photo_loss", pa.float64()),
        pa.field("gradient_norm", pa.float64()),
        pa.field("learning_rate", pa.float64(), nullable=False),
        pa.field("skipped", pa.bool_(), nullable=False),
        pa.field("images_per_s", pa.float32()),
        pa.field("data_wait_s", pa.float32()),
        pa.field("peak_memory_bytes", pa.int64()),
    ]
)
"""Columns of ``metrics.parquet``. ``step`` counts from 1; ``loss`` is the weighted sum of the unweighted terms;
``teacher_loss`` is null without a teacher, ``steady_loss`` without ``--steady-weight``, ``photo_loss`` without
``--with-photo``. ``images_per_s``, ``data_wait_s`` and ``peak_memory_bytes`` depend on the machine and the attempt; all
other columns are reproducible."""

Row = Mapping[str, Any]


def metrics_to_parquet(rows: Sequence[Row]) -> bytes:
    """Encode rows as a Parquet file."""
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows), schema=METRICS_SCHEMA), sink, compression="zstd")
    return sink.getvalue()


def metrics_from_parquet(data: bytes) -> list[dict[str, Any]]:
    """Decode the rows of a Parquet file; nullable columns that it lacks are None.

    Raises:
        CheckpointError: the bytes are not a Parquet file, or a required column is missing.
    """
    try:
        table = read_parquet(data)
    except (OSError, pa.ArrowException) as error:
        raise CheckpointError(f"its metrics cannot be read ({error})") from error
    lacking = [column for column in METRICS_SCHEMA if column.name not in table.column_names]
    required = [column.name for column in lacking if not column.nullable]
    if required:
        raise CheckpointError(f"its metrics have no column {required[0]}")
    unknown = {column.name: None for column in lacking}
    return [unknown | row for row in table.to_pylist()]


FAILED, SKIPPED = "failed", "skipped"


@dataclass(frozen=True, kw_only=True)
class LeftOutImage:
    """One content image that is not used because it cannot be decoded."""

    uri: str
    status: str
    """``failed``: a broken image; ``skipped``: not an image by its content, which does not count as a failure."""
    error_type: str
    error: str

    @classmethod
    def from_error(cls, uri: str, error: ImageError) -> LeftOutImage:
        """Return the entry for an error of the decoder."""
        status = SKIPPED if isinstance(error, NotAnImage) else FAILED
        return cls(uri=uri, status=status, error_type=error.error_type, error=error.message)

    def __str__(self) -> str:
        return f"{self.uri} ({self.error_type}: {self.error})"


def num_failed(left_out: Iterable[LeftOutImage]) -> int:
    """Return the number of broken images; text files and sidecars do not count."""
    return sum(entry.status == FAILED for entry in left_out)


def save_left_out(storage: Storage, uri: str, left_out: Iterable[LeftOutImage]) -> None:
    """Write the list as JSON, in order of location."""
    entries = [asdict(entry) for entry in sorted(left_out, key=lambda entry: entry.uri)]
    storage.write_bytes(uri, json.dumps(entries, indent=1, ensure_ascii=False).encode())


def load_left_out(storage: Storage, uri: str) -> list[LeftOutImage]:
    """Return the list that earlier starts of the run wrote; empty if it is absent or damaged."""
    try:
        return [LeftOutImage(**entry) for entry in json.loads(storage.read_bytes(uri))]
    except (ObjectNotFound, ValueError, TypeError):
        return []
