"""What a training run counts and times for Prometheus, under the names that ``infra/observability`` uses."""

from __future__ import annotations

import math

import ray.util.metrics

from pipeline.config import digest
from pipeline.meter import SECONDS, Meter, start_at_zero
from pipeline.storage.retry import num_retries

STEPS = Meter(
    kind="Counter",
    name="stylemill_training_steps",
    help="Steps by outcome: updated, or skipped because they were not finite.",
    tags=("run", "outcome"),
)
IMAGES = Meter(kind="Counter", name="stylemill_training_images", help="Crops that went through the network.")
STEP_SECONDS = Meter(
    kind="Histogram", name="stylemill_training_step_seconds", help="Seconds of a whole step.", bounds=SECONDS
)
DATA_WAIT = Meter(
    kind="Counter", name="stylemill_training_data_wait_seconds", help="Seconds that steps waited for their batch."
)
LOSS = Meter(kind="Gauge", name="stylemill_training_loss", help="Loss of the newest step.")
STEP = Meter(kind="Gauge", name="stylemill_training_step", help="The newest step.")
STEPS_PLANNED = Meter(kind="Gauge", name="stylemill_training_steps_planned", help="Steps of the whole run.")
RETRIES = Meter(
    kind="Counter", name="stylemill_training_storage_retries", help="Storage requests that were tried again."
)

METERS = (STEPS, IMAGES, STEP_SECONDS, DATA_WAIT, LOSS, STEP, STEPS_PLANNED, RETRIES)


class TrainMeters:
    """The meters of a run's first worker.

    Args:
        style: name of the style.
        out: of the run; with the style it names the run.
        steps: of the whole run.
        batch_size: crops of a step.
    """

    def __init__(self, style: str, out: str, *, steps: int, batch_size: int) -> None:
        run = f"{style}-{digest({'out': out})[:8]}"
        self._steps, self._images, self._seconds, self._wait, self._loss, self._step, self._planned, self._retries = (
            meter.open(ray.util.metrics, run=run) for meter in METERS
        )
        self._batch_size, self._num_retries = batch_size, num_retries()
        self._planned.set(steps)
        for outcome in ("updated", "skipped"):
            start_at_zero(self._steps, outcome=outcome)
        for counter in (self._images, self._wait, self._retries):
            start_at_zero(counter)

    def count(self, step: int, loss: float, *, is_finite: bool, seconds: float, wait_s: float) -> None:
        """Count one step."""
        self._steps.inc(1, {"outcome": "updated" if is_finite else "skipped"})
        self._images.inc(self._batch_size)
        self._seconds.observe(seconds)
        if wait_s > 0:
            self._wait.inc(wait_s)
        if math.isfinite(loss):
            self._loss.set(loss)
        self._step.set(step)
        before, self._num_retries = self._num_retries, num_retries()
        if self._num_retries > before:
            self._retries.inc(self._num_retries - before)
