"""Ray's notice that a node is about to be taken away, seen by all workers at the same step.

A node that is drained (``ray drain-node``, an autoscaler, a cloud's spot notice that one of them passes on) is reported
by Ray Train to every worker a few seconds later. Reading it is a barrier over all workers, so the first worker asks for
a look once a second and the request travels with the losses: a step costs nothing more.
"""

from __future__ import annotations

import logging
import time

import ray.train

log = logging.getLogger(__name__)

LOOK_PERIOD_S = 1.0


class PreemptionNotice:
    """Tells of each node once."""

    def __init__(self) -> None:
        self._last_look_s = time.monotonic()
        self._known: set[str] = set()

    @property
    def is_look_due(self) -> bool:
        """Whether it is time to look again."""
        return time.monotonic() - self._last_look_s >= LOOK_PERIOD_S

    def look(self) -> bool:
        """Return whether Ray has announced one more node; every worker must call this at the same step."""
        self._last_look_s = time.monotonic()
        found = ray.train.get_preemption_info()
        new = set(found.preempted_node_ids) - self._known if found is not None else set()
        self._known |= new
        if new:
            log.warning("Ray takes nodes away: %s", found)
        return bool(new)
