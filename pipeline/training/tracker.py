"""One zero-CPU actor per training run, between the workers and the driver."""

from __future__ import annotations

from dataclasses import dataclass

import ray

from pipeline.errors import StylemillError


@dataclass(frozen=True, kw_only=True)
class TrainProgress:
    """How far a training run is."""

    step: int = 0
    """Updates so far."""
    steps: int = 0
    """Updates in all."""
    resumed_at: int | None = None
    """Step at which the newest start continued; None before the first start."""
    num_workers: int = 0
    batch_size: int = 1
    """Samples of a step."""
    loss: float = float("nan")
    """Mean of the last steps."""
    images_per_s: float = 0.0
    """Over the last steps."""
    data_wait_fraction: float = 0.0
    """Share of the last steps' time spent waiting for data."""
    events: tuple[str, ...] = ()
    """What a person should know: skipped updates, roll-backs, damaged checkpoints."""
    is_finished: bool = False
    """Whether the style model is written."""

    @property
    def is_resumed(self) -> bool:
        """Whether the newest start continued from a checkpoint."""
        return bool(self.resumed_at)

    @property
    def seconds_left(self) -> float | None:
        """Time that the remaining steps will take, if the pace is known."""
        if not self.images_per_s:
            return None
        return (self.steps - self.step) * self.batch_size / self.images_per_s


class TrainTracker:
    """Holds the newest progress, the wish to stop, and the error that ends the run."""

    def __init__(self) -> None:
        self._progress = TrainProgress()
        self._should_stop = False
        self._failure: StylemillError | None = None

    def update(self, progress: TrainProgress) -> bool:
        """Take the newest progress; tell whether the workers should stop."""
        self._progress = progress
        return self._should_stop

    def progress(self) -> TrainProgress:
        """Return the newest progress."""
        return self._progress

    def stop(self) -> None:
        """Ask the workers to write a checkpoint and stop."""
        self._should_stop = True

    def fail(self, failure: StylemillError) -> None:
        """Take an error that no new start can mend."""
        self._failure = self._failure or failure

    def failure(self) -> StylemillError | None:
        """Return the error that ends the run, if there is one."""
        return self._failure


def start_tracker() -> ray.actor.ActorHandle:
    """Start the tracker of one run; it ends with the driver."""
    return ray.remote(TrainTracker).options(num_cpus=0, max_restarts=-1, max_task_retries=-1).remote()
