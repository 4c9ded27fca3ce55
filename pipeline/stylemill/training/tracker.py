"""Progress and metrics of a running training.

``TrainTracker`` is an actor without a CPU, one per run. Workers send it their progress, left-out images and errors; the
driver reads them and asks through it to stop. ``TrainMeters`` exports Prometheus metrics from the first worker, under
the names that ``infra/observability`` uses.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import ray
import ray.util.metrics
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from stylemill.config import digest
from stylemill.errors import StylemillError
from stylemill.meter import SECONDS, Meter, TotalCounter, start_at_zero
from stylemill.storage.retry import num_retries
from stylemill.training.layout import LeftOutImage, num_failed

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
        out: output location; style and location form the tag ``run``.
        steps: of the whole run.
        batch_size: crops of a step.
    """

    def __init__(self, style: str, out: str, *, steps: int, batch_size: int) -> None:
        run = f"{style}-{digest({'out': out})[:8]}"
        self._steps, self._images, self._seconds, self._wait, self._loss, self._step, self._planned, retries = (
            meter.open(ray.util.metrics, run=run) for meter in METERS
        )
        self._batch_size = batch_size
        self._retries = TotalCounter(retries, num_retries)
        self._planned.set(steps)
        for outcome in ("updated", "skipped"):
            start_at_zero(self._steps, outcome=outcome)
        for counter in (self._images, self._wait):
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
        self._retries.update()


@dataclass(frozen=True, kw_only=True)
class TrainProgress:
    """Progress of a training run."""

    step: int = 0
    """Updates attempted so far."""
    steps: int = 0
    """Updates of the whole run."""
    resumed_at: int | None = None
    """Step at which the newest start resumed; None before the first start."""
    began_at: int = 0
    """Step at which the first start under this driver resumed."""
    num_workers: int = 0
    batch_size: int = 1
    """Samples of a step."""
    loss: float = float("nan")
    """Mean over the last steps."""
    images_per_s: float = 0.0
    """Over the last steps."""
    data_wait_fraction: float = 0.0
    """Fraction of the last steps' time spent waiting for data."""
    events: tuple[str, ...] = ()
    """Messages for the user: skipped updates, roll-backs, damaged checkpoints."""
    num_left_out: int = 0
    """Content images that cannot be decoded."""
    is_finished: bool = False
    """Whether the style model is written."""

    @property
    def is_resumed(self) -> bool:
        """Whether the newest start resumed from a checkpoint."""
        return bool(self.resumed_at)

    @property
    def seconds_left(self) -> float | None:
        """Estimated time of the remaining steps; None before the throughput is known."""
        if not self.images_per_s:
            return None
        return (self.steps - self.step) * self.batch_size / self.images_per_s


class TrainTracker:
    """Holds the newest progress, the request to stop, the left-out images, and the error that ends the run.

    Args:
        left_out: images that earlier runs of the same command left out.
    """

    def __init__(self, left_out: Sequence[LeftOutImage] = ()) -> None:
        self._progress = TrainProgress()
        self._began_at: int | None = None
        self._left_out = {entry.uri: entry for entry in left_out}
        self._should_stop = False
        self._failure: StylemillError | None = None

    def update(self, progress: TrainProgress) -> bool:
        """Store the newest progress; return whether the workers should stop."""
        self._progress = progress
        if self._began_at is None:
            self._began_at = progress.resumed_at
        return self._should_stop

    def progress(self) -> TrainProgress:
        """Return the newest progress."""
        return replace(self._progress, began_at=self._began_at or 0, num_left_out=len(self._left_out))

    def leave_out(self, entry: LeftOutImage) -> int:
        """Record an undecodable content image; return the number of broken images over all workers."""
        self._left_out[entry.uri] = entry
        return num_failed(self._left_out.values())

    def left_out(self) -> list[LeftOutImage]:
        """Return the undecodable content images in order of location."""
        return [self._left_out[uri] for uri in sorted(self._left_out)]

    def stop(self) -> None:
        """Ask the workers to write a checkpoint and stop."""
        self._should_stop = True

    def fail(self, failure: StylemillError) -> None:
        """Record an error that restarting the workers cannot fix; only the first one is kept."""
        self._failure = self._failure or failure

    def failure(self) -> StylemillError | None:
        """Return the error that ends the run, if there is one."""
        return self._failure


def start_tracker(left_out: Sequence[LeftOutImage] = ()) -> ray.actor.ActorHandle:
    """Start the tracker of a run. It ends with the driver and runs on its node, so that it survives the loss of others.

    Args:
        left_out: images that earlier runs of the same command left out.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1, "scheduling_strategy": here}
    return ray.remote(TrainTracker).options(**options).remote(left_out)
