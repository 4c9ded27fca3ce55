"""Painting on Ray: sends the missing sources of some plan shards through actor pools of Ray Data.

A block is a table of at most ``FLUSH_ROWS`` rows of one plan shard. Actors write images and pending rows themselves;
the pipeline returns only counts.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from types import TracebackType

import pyarrow as pa
import ray
import ray.data
import ray.util.metrics

from stylemill.errors import ConfigError
from stylemill.machines import how_many_fit, max_per_machine
from stylemill.process import attributes
from stylemill.ray_internals import cluster_machines, is_cluster_of_this_process, release_actors, unwrap
from stylemill.stylizing.blocks import make_blocks
from stylemill.stylizing.config import StylizeConfig
from stylemill.stylizing.fused_actor import BulkActor
from stylemill.stylizing.gpu_actors import PaintStage, ReadStage, WriteStage
from stylemill.stylizing.identity import BulkJob
from stylemill.stylizing.liveness import Progress, RunMeters, WorkerMeters
from stylemill.stylizing.ray_tracker import RayTracker, start_tracker

log = logging.getLogger(__name__)

HELPER_CPUS = 0.5
"""CPUs that each reading and each writing actor reserves: both fit next to a painting actor on two cores."""


class RayBulkActor(BulkActor):
    """A ``BulkActor`` whose metrics Ray serves.

    Args:
        job: the run.
        tracker: of the run.
    """

    def __init__(self, job: BulkJob, tracker: RayTracker) -> None:
        super().__init__(job, tracker, WorkerMeters(ray.util.metrics, job.layout.run_id))


class RayWorkers:
    """The actors of one run on the Ray cluster that this process is connected to.

    Args:
        job: the run.

    Raises:
        ConfigError: not one actor fits a machine of the cluster.
    """

    def __init__(self, job: BulkJob) -> None:
        # On a cluster that others use, actors keep to what they reserve.
        alone = is_cluster_of_this_process() and not job.config.are_cores_chosen
        self._job = replace(job, use_idle_cores=alone)
        self._num_actors = choose_num_actors(job.config)
        self._tracker = RayTracker(start_tracker())
        self._meters = RunMeters(ray.util.metrics, job.layout.run_id)

    def __enter__(self) -> RayWorkers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Do nothing: Ray Data ends the actors, and Ray the tracker."""

    def progress(self) -> tuple[int, dict[str, int], float]:
        """Return ``RunTracker.progress``."""
        return self._tracker.progress()

    def export(self, progress: Progress) -> None:
        """Hand progress to the metrics that Ray serves."""
        self._meters.update(progress)

    def paint(self, missing: Mapping[int, pa.Table]) -> None:
        """Paint the missing sources of plan shards; their rows are in ``pending/`` when this returns.

        Args:
            missing: plan shard -> its rows of PLAN_SCHEMA that are to be painted.

        Raises:
            StylemillError: an actor raised it.
        """
        blocks = make_blocks(missing, self._num_actors)
        # The session may be a notebook's, whose own pipelines follow: its context is restored.
        own_context = attributes(
            ray.data.DataContext.get_current(),
            # Otherwise Ray Data wraps the error of an actor, and pickling loses it.
            raise_original_map_exception=True,
            # Waiting for CPUs is no fault, and a block of large images may take an hour: PaintWatch sees what is stuck.
            execution_no_progress_timeout_s=-1,
        )
        try:
            with own_context:
                _run(blocks, self._job, min(self._num_actors, len(blocks)), self._tracker)
        except Exception as error:
            own = unwrap(error, doing="painting")
            log.debug("painting failed", exc_info=error)  # before its frames are cleared
            release_actors(error)
            raise own from None if own is error else error


def _run(blocks: list[pa.Table], job: BulkJob, num_actors: int, tracker: RayTracker) -> None:
    dataset = _pipeline(ray.data.from_arrow(blocks), job, num_actors, tracker)
    for _ in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
        pass


def _pipeline(blocks: ray.data.Dataset, job: BulkJob, num_actors: int, tracker: RayTracker) -> ray.data.Dataset:
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
            blocks, RayBulkActor, num_actors, num_cpus=config.threads_per_actor, memory=config.paint.max_memory_bytes
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
