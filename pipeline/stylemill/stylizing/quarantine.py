"""The quarantine: an image at which workers die again and again, or get stuck, becomes a row.

When a worker dies, its block is run again, and ``remaining_work`` asks the run's tracker what that worker was
painting. ``PaintWatch`` ends a worker that paints one image for too long.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from stylemill.errors import ImageError
from stylemill.manifest.commit import read_pending
from stylemill.manifest.layout import RunLayout
from stylemill.storage import Storage
from stylemill.stylizing.liveness import Tracker
from stylemill.stylizing.sample import Sample

log = logging.getLogger(__name__)

MAX_WORKER_DEATHS = 2
"""An image is given up after this many deaths of the worker that was painting it, or reading it alone."""
PIXELS_PER_LIMIT = 5_000_000
"""Pixels for which ``paint_timeout_s`` is granted once."""
STUCK_EXIT_CODE = 70


class PaintWatch:
    """Ends this process if painting takes longer than its limit: nothing else stops the network's code.

    The tracker keeps the reason. The block is then run again, and the image becomes a row.

    Args:
        tracker: the run's ``RunTracker``.
        limit_s: for each style and each started ``PIXELS_PER_LIMIT``.
        num_styles: of the run.
    """

    def __init__(self, tracker: Tracker, limit_s: float, num_styles: int) -> None:
        self._tracker = tracker
        self._limit_s = limit_s * num_styles

    @contextmanager
    def __call__(self, num_pixels: Mapping[str, int]) -> Iterator[None]:
        """Watch what happens in the ``with`` block.

        Args:
            num_pixels: key of each source that is painted in the block -> its pixels in the network, of all frames.
        """
        if not num_pixels:
            yield
            return
        limit_s = self._limit_s * sum(-(-pixels // PIXELS_PER_LIMIT) or 1 for pixels in num_pixels.values())
        timer = threading.Timer(limit_s, self._end, [list(num_pixels), limit_s])
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _end(self, keys: list[str], limit_s: float) -> None:
        log.error("painting %s took longer than %.0f s; this worker ends", ", ".join(map(repr, keys)), limit_s)
        if len(keys) == 1:  # of several, none is known to be the cause: the next worker paints them one by one
            self._tracker.stuck(keys[0], limit_s)
        os._exit(STUCK_EXIT_CODE)


def remaining_work(
    storage: Storage,
    layout: RunLayout,
    shard: int,
    planned: list[dict[str, Any]],
    tracker: Tracker,
    *,
    is_repeated: bool = False,
) -> tuple[list[dict[str, Any]], list[Sample]]:
    """Return the rows of a block that must be painted, and the samples that are given up.

    When a worker dies, its block is run again. Sources whose rows were flushed are then left out, attempts are counted,
    and an image that was stuck, or was being painted at ``MAX_WORKER_DEATHS`` deaths, is given up.

    Args:
        storage: where the run is.
        layout: of the run.
        shard: of the block.
        planned: the block's rows of PLAN_SCHEMA.
        tracker: the run's ``RunTracker``.
        is_repeated: whether a worker is known to have died in this block, perhaps before it began a source.
    """
    deaths = deaths_of(tracker, [row["key"] for row in planned])
    if not deaths and not is_repeated:
        return planned, []
    done = set(read_pending(storage, layout, shard).column("key").to_pylist())
    todo, given_up = [], []
    for row in planned:
        if row["key"] in done:
            continue
        failure = count_deaths(row, deaths.get(row["key"]))
        if failure is None:
            todo.append(row)
        else:
            given_up.append(Sample(planned=row, failure=failure))
    return todo, given_up


@dataclass(frozen=True)
class Deaths:
    """What happened to the workers that were painting an image."""

    count: int
    """How many died."""
    limit_s: float | None
    """The limit that painting exceeded, if the last of them ended itself for that."""


def deaths_of(tracker: Tracker, keys: Sequence[str]) -> dict[str, Deaths]:
    """Return what happened while these sources were painted; those without a death are left out."""
    counts = tracker.unfinished(keys)
    if not counts:
        return {}
    limits_s = tracker.limits_of_stuck(keys)
    return {key: Deaths(count, limits_s.get(key)) for key, count in counts.items()}


def count_deaths(planned: dict[str, Any], deaths: Deaths | None) -> ImageError | None:
    """Add an image's worker deaths to its attempts; return why it is given up, or None.

    Args:
        planned: its row of PLAN_SCHEMA; ``attempt`` is raised.
        deaths: of workers while they were painting it.
    """
    if deaths is None:
        return None
    planned["attempt"] += deaths.count
    if deaths.limit_s is not None:
        message = f"painting it took longer than {deaths.limit_s:.0f} s; raise --paint-timeout-s if that is too little"
        return ImageError("PaintTimeout", message)
    if deaths.count < MAX_WORKER_DEATHS:
        return None
    message = f"the worker process died {deaths.count} times while processing it; paint it alone with more memory"
    return ImageError("WorkerDied", message)
