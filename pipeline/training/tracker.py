"""One zero-CPU actor per training run: what the driver shows while the workers train."""

from __future__ import annotations

from dataclasses import dataclass

import ray


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
    """Over this start."""
    data_wait_fraction: float = 0.0
    """Share of this start's time spent waiting for data."""
    events: tuple[str, ...] = ()
    """What a person should know: skipped updates, roll-backs, restarts."""

    @property
    def is_resumed(self) -> bool:
        """Whether the newest start continued from a checkpoint."""
        return bool(self.resumed_at)


class TrainTracker:
    """Holds the newest progress."""

    def __init__(self) -> None:
        self._progress = TrainProgress()

    def update(self, progress: TrainProgress) -> None:
        """Take the newest progress."""
        self._progress = progress

    def progress(self) -> TrainProgress:
        """Return the newest progress."""
        return self._progress


def start_tracker() -> ray.actor.ActorHandle:
    """Start the tracker of one run; it ends with the driver."""
    return ray.remote(TrainTracker).options(num_cpus=0, max_restarts=-1, max_task_retries=-1).remote()
