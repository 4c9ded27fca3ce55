"""Keeping one image from killing worker after worker."""

from __future__ import annotations

from typing import Any

import ray

from pipeline.errors import ImageError
from pipeline.manifest.layout import RunLayout
from pipeline.manifest.pending import read_pending
from pipeline.storage import Storage
from pipeline.stylizing.sample import Sample

MAX_WORKER_DEATHS = 2
"""An image whose worker died this often is given up."""


def still_to_do(
    storage: Storage, layout: RunLayout, shard: int, planned: list[dict[str, Any]], tracker: ray.actor.ActorHandle
) -> tuple[list[dict[str, Any]], list[Sample]]:
    """Return what of a block must be painted, and the samples that are given up.

    A block comes a second time if its worker died. What the worker had flushed is left out then, attempts are
    counted, and an image that was being painted at each of two deaths is given up.

    Args:
        storage: where the run is.
        layout: of the run.
        shard: of the block.
        planned: the block's rows of PLAN_SCHEMA.
        tracker: the run's ``RunTracker``.
    """
    deaths: dict[str, int] = ray.get(tracker.unfinished.remote([row["key"] for row in planned]))
    if not deaths:
        return planned, []
    done = set(read_pending(storage, layout, shard).column("key").to_pylist())
    todo, given_up = [], []
    for row in planned:
        if row["key"] in done:
            continue
        failure = count_deaths(row, deaths.get(row["key"], 0))
        if failure is None:
            todo.append(row)
        else:
            given_up.append(Sample(planned=row, failure=failure))
    return todo, given_up


def count_deaths(planned: dict[str, Any], count: int) -> ImageError | None:
    """Count the attempts at which an image's worker died; return why it is given up, or None.

    Args:
        planned: its row of PLAN_SCHEMA; ``attempt`` is raised.
        count: deaths of its worker while it was in hand.
    """
    planned["attempt"] += count
    if count < MAX_WORKER_DEATHS:
        return None
    message = f"the worker process died {count} times while painting it; paint it alone with more memory"
    return ImageError("WorkerDied", message)
