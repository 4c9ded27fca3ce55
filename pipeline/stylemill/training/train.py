"""The driver of a training run: it holds the lease, starts Ray Train, and monitors the workers.

The work itself is in ``worker.train_worker``. Driver and workers communicate through the run's ``TrainTracker``.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import ray
import ray.train
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from stylemill.errors import ConfigError, StorageError
from stylemill.machines import how_many_fit, max_per_machine
from stylemill.process import periodically, scratch_folder
from stylemill.ray_internals import cluster_machines, keep_interrupts, leave_out_blind_cleaner, ray_failure, unwrap
from stylemill.storage import Storage
from stylemill.storage.lease import acquire
from stylemill.style_file import StyleHeader, load_style_headers
from stylemill.training.config import TrainConfig
from stylemill.training.layout import TrainLayout, load_left_out, save_left_out
from stylemill.training.preflight import PreparedTraining
from stylemill.training.ray_backend import ClusterTorchConfig
from stylemill.training.tracker import TrainProgress, start_tracker
from stylemill.training.worker import train_worker

log = logging.getLogger(__name__)

MAX_FAILURES = 5
"""Failures of workers after which the run stops; the same command resumes it."""
MAX_START_FAILURES = 30
"""Failed attempts to start the workers after which the run stops; in each, Ray waits a minute for free resources."""
PROGRESS_PERIOD_S = 0.5
FEW_WORKERS = 16
POLL_VARIABLE = "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"

ProgressCallback = Callable[[TrainProgress], None]


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """The outcome of a training run."""

    layout: TrainLayout
    headers: tuple[StyleHeader, ...]
    """Of the trained styles; none if the run was stopped early."""
    progress: TrainProgress
    already_finished: bool
    wall_s: float


def train(
    run: PreparedTraining, on_progress: ProgressCallback | None = None, *, stop: threading.Event | None = None
) -> TrainResult:
    """Train a prepared run to its end on the Ray cluster that this process is connected to.

    Args:
        run: from ``preflight.prepare``.
        on_progress: called about twice a second from a separate thread.
        stop: once set, the workers finish their step, write a checkpoint and stop; the same command resumes.

    Raises:
        ConfigError: the cluster lacks resources that the config asks for.
        StorageError: storage failed beyond its retries; the same command resumes.
        TooManyFailures: too many content images cannot be decoded.
        RunConflict: another process trains the same run.
        ClusterError: workers failed repeatedly, or the cluster never had room for them; the same command resumes.
    """
    start_s = time.monotonic()
    if run.finished:
        progress = TrainProgress(step=run.config.steps, steps=run.config.steps)
        return TrainResult(
            layout=run.layout, headers=run.finished, progress=progress, already_finished=True, wall_s=0.0
        )
    storage = Storage(run.config.storage)
    with acquire(storage, run.layout.lease_uri, on_wait=log.warning):
        monitor = _Monitor(run, storage, on_progress, stop)
        tracker = monitor.tracker
        with periodically(monitor.poll, PROGRESS_PERIOD_S):
            _fit(run, tracker)
        failure = ray.get(tracker.failure.remote())
        if failure is not None:
            raise failure
        progress = ray.get(tracker.progress.remote())
    headers: tuple[StyleHeader, ...] = ()
    if progress.is_finished:
        found = {header.name: header for header in load_style_headers(storage, run.layout.style_uri)}
        headers = tuple(found[style.name] for style in run.styles)
    return TrainResult(
        layout=run.layout,
        headers=headers,
        progress=progress,
        already_finished=False,
        wall_s=time.monotonic() - start_s,
    )


def _fit(run: PreparedTraining, tracker: ray.actor.ActorHandle) -> None:
    config = run.config
    low, high = config.worker_range
    cpus = choose_cpus_per_worker(config)
    resources: dict[str, float] = {"CPU": cpus}
    if config.device == "cuda":
        resources["GPU"] = 1
    with scratch_folder("stylemill-train-") as scratch:
        trainer = TorchTrainer(
            train_worker,
            train_loop_config={"run": run, "tracker": tracker, "threads": cpus, "driver": uuid.uuid4().hex},
            scaling_config=ScalingConfig(
                num_workers=low if low == high else (low, high),
                use_gpu=config.device == "cuda",
                resources_per_worker=resources,
            ),
            torch_config=ClusterTorchConfig(backend="nccl" if config.device == "cuda" else "gloo"),
            # Checkpoints are our own, under OUT; Ray stores only its controller's state here. The name is new for
            # each start because Ray would otherwise continue a finished run of the same name.
            run_config=RunConfig(
                name=uuid.uuid4().hex,
                storage_path=str(scratch),
                failure_config=FailureConfig(max_failures=MAX_FAILURES, controller_failure_limit=MAX_START_FAILURES),
            ),
        )
        keep_interrupts(trainer)
        leave_out_blind_cleaner(trainer)
        try:
            with _frequent_polls(high):
                trainer.fit()
        except Exception as error:
            log.debug("Ray Train failed", exc_info=error)
            own = unwrap(error, doing="training")
            raise own if own is not error else ray_failure(error, doing="training") from error


@contextmanager
def _frequent_polls(num_workers: int) -> Iterator[None]:
    """Let Ray Train's controller look at few workers twice a second, unless the user has set how often.

    By default it looks every two seconds, by which a training starts and ends later.
    """
    if num_workers > FEW_WORKERS or POLL_VARIABLE in os.environ:
        yield
        return
    os.environ[POLL_VARIABLE] = "0.5"
    try:
        yield
    finally:
        os.environ.pop(POLL_VARIABLE, None)


def choose_cpus_per_worker(config: TrainConfig) -> int:
    """Return the number of CPUs per worker: the configured one, or the largest with which all workers fit.

    Raises:
        ConfigError: the smallest number of workers does not fit the cluster's machines.
    """
    machines = cluster_machines()
    low, high = config.worker_range
    gpus = {"GPU": 1.0} if config.device == "cuda" else {}
    if gpus and not max_per_machine(machines, "GPU"):
        raise ConfigError("device", config.device, "the cluster has no GPU", "use cpu")
    most = int(max_per_machine(machines, "CPU"))
    shares = range(most, 1, -1)  # largest first; a worker runs on one machine
    wanted = config.cpus_per_worker or next(
        (cpus for cpus in shares if how_many_fit(machines, {"CPU": cpus, **gpus}) >= high), 1
    )
    fits = how_many_fit(machines, {"CPU": wanted, **gpus})
    if fits < low:
        cure = f"use at most {fits} workers" if fits else f"use at most {most} CPUs per worker"
        each = f"{wanted} CPU{'s' * (wanted > 1)}" + " and a GPU" * bool(gpus)
        problem = f"needs {low} times {each} on one machine, the cluster has room for {fits}"
        raise ConfigError("num_workers", config.num_workers, problem, cure)
    return wanted


class _Monitor:
    """Monitors a run from the driver: reports progress, writes the left-out list, forwards the request to stop."""

    def __init__(
        self,
        run: PreparedTraining,
        storage: Storage,
        on_progress: ProgressCallback | None,
        stop: threading.Event | None,
    ) -> None:
        self._storage, self._list_uri = storage, run.layout.left_out_uri
        self._on_progress, self._stop = on_progress, stop
        listed = load_left_out(storage, self._list_uri)
        self._num_listed = len(listed)
        self.tracker = start_tracker(listed)

    def poll(self) -> None:
        """Do all of this once."""
        progress = ray.get(self.tracker.progress.remote())
        if progress.num_left_out > self._num_listed:
            try:
                save_left_out(self._storage, self._list_uri, ray.get(self.tracker.left_out.remote()))
                self._num_listed = progress.num_left_out
            except StorageError as error:  # not worth failing the training; the next poll tries again
                log.warning("cannot write the list of left-out images, trying again: %s", error)
        if self._on_progress is not None:
            self._on_progress(progress)
        if self._stop is not None and self._stop.is_set():
            ray.get(self.tracker.stop.remote())
