"""The tracker of a run on Ray: an actor, and the handle through which workers on any machine reach it."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from stylemill.stylizing.liveness import Finished, RunTracker

log = logging.getLogger(__name__)

STUCK_REPORT_S = 30.0
"""A worker that ends itself waits this long for the tracker."""


def start_tracker() -> ray.actor.ActorHandle:
    """Start a run's tracker as an actor that reserves no CPU and ends with the driver.

    It runs on the driver's node: an image that kills machines must not reset the count of its deaths.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1, "scheduling_strategy": here}
    return ray.remote(RunTracker).options(**options).remote()


class RayTracker:
    """The ``liveness.Tracker`` of actors.

    Args:
        actor: from ``start_tracker``.
    """

    def __init__(self, actor: ray.actor.ActorHandle) -> None:
        self._actor = actor

    def start_block(self, key: str) -> bool:
        """Send ``RunTracker.start_block`` and return its answer."""
        is_repeated: bool = ray.get(self._actor.start_block.remote(key))
        return is_repeated

    def end_block(self, key: str) -> None:
        """Send ``RunTracker.end_block``."""
        self._actor.end_block.remote(key)

    def begin(self, key: str, finished: Sequence[Finished] = ()) -> None:
        """Send ``RunTracker.begin``."""
        self._actor.begin.remote(key, finished)

    def begin_and_wait(self, keys: Sequence[str]) -> None:
        """Send ``RunTracker.begin`` for each source; all have arrived when this returns."""
        ray.get([self._actor.begin.remote(key) for key in keys])

    def finish(self, finished: Sequence[Finished]) -> None:
        """Send ``RunTracker.finish``."""
        self._actor.finish.remote(finished)

    def painted(self, keys: Sequence[str]) -> None:
        """Send ``RunTracker.painted``."""
        self._actor.painted.remote(keys)

    def unfinished(self, keys: Sequence[str]) -> dict[str, int]:
        """Return ``RunTracker.unfinished``."""
        counts: dict[str, int] = ray.get(self._actor.unfinished.remote(keys))
        return counts

    def stuck(self, key: str, limit_s: float) -> None:
        """Send ``RunTracker.stuck`` and wait for the answer."""
        try:
            ray.get(self._actor.stuck.remote(key, limit_s), timeout=STUCK_REPORT_S)
        except ray.exceptions.RayError as error:  # it then counts as a death of the worker
            log.warning("the tracker could not be reached: %s", error)

    def limits_of_stuck(self, keys: Sequence[str]) -> dict[str, float]:
        """Return ``RunTracker.limits_of_stuck``."""
        limits_s: dict[str, float] = ray.get(self._actor.limits_of_stuck.remote(keys))
        return limits_s

    def progress(self) -> tuple[int, dict[str, int], float]:
        """Return ``RunTracker.progress``."""
        found: tuple[int, dict[str, int], float] = ray.get(self._actor.progress.remote())
        return found
