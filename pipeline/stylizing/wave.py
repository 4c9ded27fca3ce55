"""One wave: some plan shards' missing sources through an actor pool of Ray Data."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
import ray
import ray.data

from pipeline.errors import ConfigError, StylemillError
from pipeline.manifest.pending import FLUSH_ROWS
from pipeline.stylizing.bulk_actor import BulkActor, BulkJob
from pipeline.stylizing.config import StylizeConfig

BLOCKS_PER_ACTOR = 4
"""At least so many blocks for each actor, where there are enough sources: the last ones then end together."""


def paint_wave(job: BulkJob, missing: Mapping[int, pa.Table], num_actors: int, tracker: ray.actor.ActorHandle) -> None:
    """Paint sources; their rows are in ``pending/`` when this returns.

    Args:
        job: the run.
        missing: plan shard -> its rows of PLAN_SCHEMA that are to be done.
        num_actors: size of the pool, at most.
        tracker: the run's ``RunTracker``.

    Raises:
        StylemillError: what an actor raised.
    """
    num_missing = sum(table.num_rows for table in missing.values())
    rows_per_block = max(1, min(FLUSH_ROWS, -(-num_missing // (BLOCKS_PER_ACTOR * num_actors))))
    blocks = [
        block.append_column("shard", pa.array([shard] * block.num_rows, pa.int64()))
        for shard, table in missing.items()
        for block in (table.slice(start, rows_per_block) for start in range(0, table.num_rows, rows_per_block))
    ]
    dataset = ray.data.from_arrow(blocks).map_batches(
        BulkActor,
        batch_size=None,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=min(num_actors, len(blocks))),
        num_cpus=job.config.threads_per_actor,
        memory=job.config.max_memory_bytes,
        fn_constructor_kwargs={"job": job, "tracker": tracker},
    )
    try:
        for _ in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
            pass
    except Exception as error:
        raise own_error(error) from error


def choose_num_actors(config: StylizeConfig) -> int:
    """Return how many actors fit the cluster: by CPUs and by memory, never more than asked for.

    Raises:
        ConfigError: not even one fits.
    """
    has = ray.cluster_resources()
    by_cpu = int(has.get("CPU", 0) // config.threads_per_actor)
    by_memory = int(has.get("memory", 0) // config.max_memory_bytes)
    if not by_cpu:
        cure = f"give at most {int(has.get('CPU', 0))}"
        raise ConfigError("threads_per_actor", config.threads_per_actor, "is more CPUs than the cluster has", cure)
    if not by_memory:
        cure = f"give at most {int(has.get('memory', 0) / 2**20)}MiB"
        raise ConfigError("max_memory", config.max_memory, "is more than the cluster has free", cure)
    return min(by_cpu, by_memory, config.num_actors or by_cpu)


def own_error(error: BaseException) -> BaseException:
    """Return this project's error inside one of Ray's, or the error itself."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, StylemillError):
            return seen
        cause = getattr(seen, "cause", None)
        seen = cause if isinstance(cause, BaseException) else seen.__cause__
    return error
