"""Painting on Ray: sends the missing sources of some plan shards through actor pools of Ray Data.

A block is a table of at most ``FLUSH_ROWS`` rows of one plan shard. Actors write images and pending rows themselves;
the pipeline returns only counts.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

import pyarrow as pa
import ray
import ray.data

from stylemill.errors import ConfigError
from stylemill.machines import how_many_fit, max_per_machine
from stylemill.manifest.commit import FLUSH_ROWS
from stylemill.ray_internals import cluster_machines, release_actors, unwrap
from stylemill.stylizing.config import StylizeConfig
from stylemill.stylizing.fused_actor import BulkActor
from stylemill.stylizing.gpu_actors import PaintStage, ReadStage, WriteStage
from stylemill.stylizing.identity import BulkJob

log = logging.getLogger(__name__)

HELPER_CPUS = 0.5
"""CPUs that each reading and each writing actor reserves: both fit next to a painting actor on two cores."""
MIN_BLOCKS_PER_ACTOR = 4
"""Blocks are made smaller if each actor would get fewer, so that all actors finish at about the same time."""


def paint_shards(
    job: BulkJob, missing: Mapping[int, pa.Table], num_actors: int, tracker: ray.actor.ActorHandle
) -> None:
    """Paint the missing sources of plan shards; their rows are in ``pending/`` when this returns.

    Args:
        job: the run.
        missing: plan shard -> its rows of PLAN_SCHEMA that are to be painted.
        num_actors: maximum number of painting actors.
        tracker: the run's ``RunTracker``.

    Raises:
        StylemillError: an actor raised it.
    """
    num_missing = sum(table.num_rows for table in missing.values())
    rows_per_block = max(1, min(FLUSH_ROWS, -(-num_missing // (MIN_BLOCKS_PER_ACTOR * num_actors))))
    blocks = [
        block.append_column("shard", pa.array([shard] * block.num_rows, pa.int64()))
        for shard, table in missing.items()
        for block in (table.slice(start, rows_per_block) for start in range(0, table.num_rows, rows_per_block))
    ]
    context = ray.data.DataContext.get_current()
    # Otherwise Ray Data wraps the error of an actor, and pickling loses it.
    context.raise_original_map_exception = True
    # Waiting for CPUs is no fault, and a block of large images may take an hour; PaintWatch finds what is stuck.
    context.execution_no_progress_timeout_s = -1
    try:
        _run(blocks, job, min(num_actors, len(blocks)), tracker)
    except Exception as error:
        own = unwrap(error, doing="painting")
        log.debug("painting failed", exc_info=error)  # before its frames are cleared
        release_actors(error)
        raise own from None if own is error else error


def _run(blocks: list[pa.Table], job: BulkJob, num_actors: int, tracker: ray.actor.ActorHandle) -> None:
    dataset = _pipeline(ray.data.from_arrow(blocks), job, num_actors, tracker)
    for _ in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
        pass


def _pipeline(
    blocks: ray.data.Dataset, job: BulkJob, num_actors: int, tracker: ray.actor.ActorHandle
) -> ray.data.Dataset:
    config = job.config

    def stage(dataset: ray.data.Dataset, actor: type, size: int, **resources: float) -> ray.data.Dataset:
        return dataset.map_batches(
            actor,
            batch_size=None,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=size),
            fn_constructor_kwargs={"job": job, "tracker": tracker},
            **resources,
        )

    if not config.are_stages_separate:
        return stage(
            blocks, BulkActor, num_actors, num_cpus=config.threads_per_actor, memory=config.paint.max_memory_bytes
        )
    gpus = {"num_gpus": 1} if config.paint.device == "cuda" else {}
    helpers = max(1, int(ray.cluster_resources().get("CPU", 1) - num_actors * config.threads_per_actor) // 2)
    read = stage(blocks, ReadStage, helpers, num_cpus=HELPER_CPUS)
    painted = stage(
        read, PaintStage, num_actors, num_cpus=config.threads_per_actor, memory=config.paint.max_memory_bytes, **gpus
    )
    return stage(painted, WriteStage, helpers, num_cpus=HELPER_CPUS)


def choose_num_actors(config: StylizeConfig) -> int:
    """Return how many painting actors fit the cluster's machines, at most ``config.num_actors``.

    Raises:
        ConfigError: not one fits.
    """
    machines = cluster_machines()
    threads, memory_bytes = config.threads_per_actor, config.paint.max_memory_bytes
    if max_per_machine(machines, "CPU") < threads:
        cure = f"give at most {int(max_per_machine(machines, 'CPU'))}"
        raise ConfigError("threads_per_actor", threads, "is more CPUs than any machine of the cluster has", cure)
    if max_per_machine(machines, "memory") < memory_bytes:
        cure = f"give at most {int(max_per_machine(machines, 'memory') / 2**20)}MiB"
        problem = "is more than any machine of the cluster has free"
        raise ConfigError("max_memory", config.paint.max_memory, problem, cure)
    need = {"CPU": threads, "memory": memory_bytes}
    if config.paint.device == "cuda":
        if not max_per_machine(machines, "GPU"):
            raise ConfigError("device", config.paint.device, "the cluster has no GPU", "use cpu")
        need["GPU"] = 1
    fits = how_many_fit(machines, need)
    if not fits:
        each = ", ".join(f"{name} {amount:,.0f}" for name, amount in need.items())
        cure = "lower --threads-per-actor or --max-memory"
        raise ConfigError("num_actors", config.num_actors, f"no machine of the cluster has {each} at once", cure)
    if config.are_stages_separate and config.paint.device == "cpu":
        fits = max(1, fits - 1)
    return min(fits, config.num_actors or fits)
