"""What Ray Data raises: the error of this project inside it, and the actors that it keeps alive.

One wave: some plan shards' missing sources through an actor pool of Ray Data.
"""

from __future__ import annotations

import gc
import logging
import traceback
from collections.abc import Mapping
from types import FrameType

import pyarrow as pa
import ray
import ray.data
import ray.exceptions

from stylemill.errors import ClusterError, ConfigError, StylemillError, own_cause
from stylemill.machines import Resources, how_many_fit, machines_of, most_of
from stylemill.manifest.commit import FLUSH_ROWS
from stylemill.stylizing.config import StylizeConfig
from stylemill.stylizing.fused_actor import BulkActor
from stylemill.stylizing.gpu_actors import PaintStage, ReadStage, WriteStage
from stylemill.stylizing.identity import BulkJob

log = logging.getLogger(__name__)

_RAYS_ADVICE = "\nFailed to apply UDF transform after "
"""Begins what Ray Data appends to the messages of errors: how to make it retry them."""


def own_error(error: BaseException) -> BaseException:
    """Return this project's error inside one of Ray's, a ClusterError for Ray's own, or the error itself."""
    own = own_cause(error)
    if own is not None:
        return _without_rays_advice(own)
    if isinstance(error, ray.exceptions.RayError) and not isinstance(error, ray.exceptions.RayTaskError):
        reason = next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), "no reason given")
        return ClusterError(
            f"{type(error).__name__}: {reason}; run the same command again to resume (STYLEMILL_LOG=DEBUG tells more)"
        )
    return error


def _without_rays_advice(error: StylemillError) -> StylemillError:
    """Return an error as it was raised; Ray Data appends to the first text among its arguments."""
    texts = (argument.partition(_RAYS_ADVICE)[0] if isinstance(argument, str) else argument for argument in error.args)
    return type(error)(*texts)


def let_go(error: BaseException) -> None:
    """Drop what still holds handles of a failed run's actors, and with them their CPUs.

    Ray Data leaves its actors to reference counting. Handles stay in its ended frames for as long as somebody keeps the
    error or a log record of it; and in cycles, which a process that waits would never collect.
    """
    errors, known = [error], {id(error)}
    while errors:
        error = errors.pop()
        for frame, _ in traceback.walk_tb(error.__traceback__):
            _clear(frame)
        error.__traceback__ = None
        for earlier in (error.__cause__, error.__context__):
            if earlier is not None and id(earlier) not in known:
                known.add(id(earlier))
                errors.append(earlier)
    gc.collect()


def _clear(frame: FrameType | None) -> None:
    """Clear a frame and those that called it, up to the first that still runs."""
    while frame is not None:
        try:
            frame.clear()
        except RuntimeError:
            return
        frame = frame.f_back


HELPER_CPUS = 0.5
"""Reserved by each reading and each writing actor, so that both fit beside the network on a machine of two cores."""
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
    # Otherwise what an actor raised is wrapped, and lost where it is pickled.
    ray.data.DataContext.get_current().raise_original_map_exception = True
    try:
        _run(blocks, job, min(num_actors, len(blocks)), tracker)
    except Exception as error:
        own = own_error(error)
        log.debug("painting failed", exc_info=error)  # the last that is seen of Ray's frames
        let_go(error)
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
        return stage(blocks, BulkActor, num_actors, num_cpus=config.threads_per_actor, memory=config.max_memory_bytes)
    gpus = {"num_gpus": 1} if config.device == "cuda" else {}
    helpers = max(1, int(ray.cluster_resources().get("CPU", 1) - num_actors * config.threads_per_actor) // 2)
    read = stage(blocks, ReadStage, helpers, num_cpus=HELPER_CPUS)
    painted = stage(
        read, PaintStage, num_actors, num_cpus=config.threads_per_actor, memory=config.max_memory_bytes, **gpus
    )
    return stage(painted, WriteStage, helpers, num_cpus=HELPER_CPUS)


def choose_num_actors(config: StylizeConfig) -> int:
    """Return how many actors with the network fit the cluster's machines, never more than asked for.

    Raises:
        ConfigError: not even one fits.
    """
    machines = cluster_machines()
    threads, memory_bytes = config.threads_per_actor, config.max_memory_bytes
    if most_of(machines, "CPU") < threads:
        cure = f"give at most {int(most_of(machines, 'CPU'))}"
        raise ConfigError("threads_per_actor", threads, "is more CPUs than any machine of the cluster has", cure)
    if most_of(machines, "memory") < memory_bytes:
        cure = f"give at most {int(most_of(machines, 'memory') / 2**20)}MiB"
        problem = "is more than any machine of the cluster has free"
        raise ConfigError("max_memory", config.max_memory, problem, cure)
    need = {"CPU": threads, "memory": memory_bytes}
    if config.device == "cuda":
        if not most_of(machines, "GPU"):
            raise ConfigError("device", config.device, "is not in the cluster, which has no GPU", "use cpu")
        need["GPU"] = 1
    fits = how_many_fit(machines, need)
    if not fits:
        each = ", ".join(f"{name} {amount:,.0f}" for name, amount in need.items())
        cure = "lower --threads-per-actor or --max-memory"
        raise ConfigError("num_actors", config.num_actors, f"no machine of the cluster has {each} at once", cure)
    if config.are_stages_separate and config.device == "cpu":
        fits = max(1, fits - 1)
    return min(fits, config.num_actors or fits)


def cluster_machines() -> list[Resources]:
    """Return what each machine of the connected cluster has, those included that its autoscaler may add."""
    scaling = ray._private.state.state.get_cluster_config()
    return machines_of(ray.nodes(), scaling.node_group_configs if scaling else ())
