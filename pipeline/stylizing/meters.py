"""What a bulk run counts and times for Prometheus, under the names that ``infra/observability`` uses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import ray.util.metrics

from pipeline.meter import SECONDS, Meter, start_at_zero
from pipeline.storage.retry import num_retries
from pipeline.stylizing.tracker import Progress

IMAGES = Meter(kind="Counter", name="stylemill_images", help="Rows of the manifest by status.", tags=("run", "status"))
STAGE_SECONDS = Meter(
    kind="Histogram",
    name="stylemill_stage_seconds",
    help="Seconds that an image spent in a stage: decode, stylize, encode.",
    tags=("run", "stage"),
    bounds=SECONDS,
)
BYTES = Meter(
    kind="Counter", name="stylemill_bytes", help="Bytes of sources read and results written.", tags=("run", "direction")
)
RETRIES = Meter(kind="Counter", name="stylemill_storage_retries", help="Storage requests that were tried again.")
PLANNED = Meter(kind="Gauge", name="stylemill_sources_planned", help="Sources of the plan as far as it stands.")
FINISHED = Meter(kind="Gauge", name="stylemill_sources_finished", help="Sources that have their rows.")

METERS = (IMAGES, STAGE_SECONDS, BYTES, RETRIES, PLANNED, FINISHED)


class WorkerMeters:
    """The meters of one worker process.

    Args:
        run_id: the run.
    """

    def __init__(self, run_id: str) -> None:
        self._images, self._stages, self._bytes, self._retries = (
            meter.open(ray.util.metrics, run=run_id) for meter in (IMAGES, STAGE_SECONDS, BYTES, RETRIES)
        )
        self._num_retries = num_retries()
        start_at_zero(self._retries)

    def count(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Count the finished rows of one source; what was never made is missing in them."""
        for row in rows:
            self._images.inc(1, {"status": row["status"]})
            if row.get("output_bytes"):
                self._bytes.inc(row["output_bytes"], {"direction": "written"})
            for stage in ("decode", "stylize", "encode"):
                if row.get(f"{stage}_ms") is not None:
                    self._stages.observe(row[f"{stage}_ms"] / 1000, {"stage": stage})
        if rows and rows[0]["source_bytes"]:
            self._bytes.inc(rows[0]["source_bytes"], {"direction": "read"})
        self.count_retries()

    def count_retries(self) -> None:
        """Count what this process had to try again since the last call."""
        before, self._num_retries = self._num_retries, num_retries()
        if self._num_retries > before:
            self._retries.inc(self._num_retries - before)


class RunMeters:
    """The meters of a run's driver.

    Args:
        run_id: the run.
    """

    def __init__(self, run_id: str) -> None:
        self._planned, self._finished = (meter.open(ray.util.metrics, run=run_id) for meter in (PLANNED, FINISHED))

    def show(self, progress: Progress) -> None:
        """Take the newest progress."""
        self._planned.set(progress.num_sources)
        self._finished.set(progress.num_resumed + progress.num_finished)
