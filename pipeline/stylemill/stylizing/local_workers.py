"""Painting without Ray: a few worker processes on this machine, for small jobs, which would wait for a cluster longest.

Workers run the same ``BulkActor`` on the same blocks as Ray's actors. A worker that dies is replaced and its block is
done again; the run's tracker, here an object of the driver, remembers what that worker had started, so that
``quarantine.remaining_work`` gives up an image at which workers die.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import TracebackType

import pyarrow as pa

import stylemill
from stylemill.errors import ClusterError, ConfigError
from stylemill.machines import Resources, how_many_fit, this_machine
from stylemill.stylizing.blocks import make_blocks
from stylemill.stylizing.config import StylizeConfig
from stylemill.stylizing.identity import BulkJob
from stylemill.stylizing.liveness import Progress, RunTracker
from stylemill.stylizing.local_link import BEGIN, DONE, FAILED, FINISH, STUCK, Order

log = logging.getLogger(__name__)

MAX_THREADS = 4
"""CPUs that one worker uses by default: fewer workers import torch, and one image is painted sooner."""
MAX_IDLE_DEATHS = 3
"""The run ends when this many workers died one after another, each in a block at which one had died before, and none of
them had begun a source: the images are not the cause."""
_MESSAGE_CHARACTERS = 500


class LocalWorkers:
    """The workers of one run. A context manager: they end when the block does.

    Args:
        job: the run.
        first: a worker that was started early; this object ends it.
        chosen: what ``choose_workers`` returned, where the caller has told the user; free memory changes meanwhile.

    Raises:
        ConfigError: not one worker fits this machine.
    """

    def __init__(self, job: BulkJob, first: WorkerProcess | None = None, chosen: tuple[int, int] | None = None) -> None:
        self._num_workers, threads = chosen or choose_workers(job.config)
        config = replace(job.config, threads_per_actor=threads)
        self._job = replace(job, config=config, use_idle_cores=not job.config.are_cores_chosen)
        self._tracker = RunTracker()
        self._workers = [] if first is None else [first]
        self._idle_deaths = 0

    def __enter__(self) -> LocalWorkers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers:
            worker.end()

    def progress(self) -> tuple[int, dict[str, int], float]:
        """Return ``RunTracker.progress``."""
        return self._tracker.progress()

    def export(self, progress: Progress) -> None:
        """Do nothing: only Ray serves metrics."""

    def paint(self, missing: Mapping[int, pa.Table]) -> None:
        """Paint the missing sources of plan shards; their rows are in ``pending/`` when this returns.

        Args:
            missing: plan shard -> its rows of PLAN_SCHEMA that are to be painted.

        Raises:
            StylemillError: a worker raised it. What else it raises is a defect, with the worker's traceback as cause.
            ClusterError: workers die before they begin a source.
        """
        waiting = deque(make_blocks(missing, self._num_workers))
        while waiting or any(worker.block is not None for worker in self._workers):
            while len(self._workers) < self._num_workers and self._num_idle() < len(waiting):
                self._workers.append(WorkerProcess())
            for worker in list(self._workers):
                if waiting and worker.block is None:
                    self._give(worker, waiting)
            busy = {worker.connection: worker for worker in self._workers if worker.block is not None}
            for connection in wait(list(busy)) if busy else ():  # nobody is busy if all died idle
                self._hear(busy[connection], waiting)  # type: ignore[index]

    def _num_idle(self) -> int:
        return sum(worker.block is None for worker in self._workers)

    def _give(self, worker: WorkerProcess, waiting: deque[pa.Table]) -> None:
        block = waiting.popleft()
        keys = block.column("key").to_pylist()
        worker.block, worker.has_begun = block, False
        worker.is_repeating = self._tracker.start_block(keys[0])
        try:
            if not worker.has_job:
                worker.connection.send(self._job)
                worker.has_job = True
            worker.connection.send(
                Order(
                    block=block,
                    is_repeated=worker.is_repeating,
                    unfinished=self._tracker.unfinished(keys),
                    limits_of_stuck=self._tracker.limits_of_stuck(keys),
                )
            )
        except OSError:  # it died since its start or its last block
            self._bury(worker, waiting)

    def _hear(self, worker: WorkerProcess, waiting: deque[pa.Table]) -> None:
        """Take one message of a worker, or its death."""
        try:
            name, *arguments = worker.connection.recv()
        except (EOFError, OSError):
            self._bury(worker, waiting)
            return
        match name:
            case str() if name == BEGIN:
                worker.has_begun = True
                self._idle_deaths = 0
                self._tracker.begin(*arguments)
            case str() if name == FINISH:
                self._tracker.finish(*arguments)
            case str() if name == STUCK:
                self._tracker.stuck(*arguments)
            case str() if name == DONE:
                assert worker.block is not None
                self._tracker.end_block(worker.block.column("key")[0].as_py())
                worker.block = None
            case str() if name == FAILED:
                raise arguments[0].exception()

    def _bury(self, worker: WorkerProcess, waiting: deque[pa.Table]) -> None:
        """Forget a worker that died; its block is the next to be done.

        Raises:
            ClusterError: workers die before they begin a source.
        """
        self._workers.remove(worker)
        assert worker.block is not None
        waiting.appendleft(worker.block)
        how = worker.end()
        log.info("a worker %s; its block is done again", how)
        if worker.has_begun:
            self._idle_deaths = 0
        elif worker.is_repeating:  # the first time, an image that was read ahead may be the cause
            self._idle_deaths += 1
        if self._idle_deaths >= MAX_IDLE_DEATHS:
            raise ClusterError(f"worker processes end before they paint: the last one {how}; free memory or processes")


class WorkerProcess:
    """One process of ``local_worker``. It imports torch at once, and waits for its job.

    Attributes:
        connection: to it.
        has_job: whether the run was sent to it.
        block: what it is doing.
        is_repeating: whether a worker died in this block before.
        has_begun: whether it has begun a source of this block.
    """

    def __init__(self) -> None:
        self.has_job = False
        self.block: pa.Table | None = None
        self.is_repeating = self.has_begun = False
        ours, theirs = socket.socketpair()
        root = str(Path(stylemill.__file__).resolve().parents[1])
        paths = [root, *(os.path.abspath(path) for path in sys.path)]  # noqa: PTH100 (leaves links as they are)
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 (closed by ``end``)
        with theirs:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-P",
                    "-m",
                    "stylemill.stylizing.local_worker",
                    str(theirs.fileno()),
                    str(os.getpid()),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._stderr,
                pass_fds=[theirs.fileno()],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
                start_new_session=True,  # Ctrl-C reaches the driver alone, which ends its workers
            )
        self.connection = Connection(ours.detach())

    def end(self) -> str:
        """End the process and return how it ended, with the last line that it wrote; calls after the first are free."""
        self.connection.close()
        self._process.kill()
        code = self._process.wait()
        if self._stderr.closed:
            return ""
        with self._stderr as file:
            file.seek(0)
            lines = file.read().decode(errors="replace").split("\n")
        last = next((line for line in reversed(lines) if line.strip()), "")[-_MESSAGE_CHARACTERS:]
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        return f"{how} ({last})" if last else how


def choose_workers(config: StylizeConfig, machine: Resources | None = None) -> tuple[int, int]:
    """Return how many workers paint on this machine, and with how many threads each.

    ``threads_per_actor`` counts if it, or ``num_actors``, differs from the default: neither changes results.

    Args:
        config: of the run.
        machine: as ``this_machine`` returns it, which is called if this is None.

    Raises:
        ConfigError: not one worker fits this machine.
    """
    machine = machine or this_machine()
    num_cpus, free_bytes = int(machine["CPU"]), int(machine["memory"])
    threads = config.threads_per_actor if config.are_cores_chosen else min(MAX_THREADS, num_cpus)
    if threads > num_cpus:
        raise ConfigError(
            "threads_per_actor", threads, "is more CPUs than this machine has", f"give at most {num_cpus}"
        )
    fits = how_many_fit([machine], {"CPU": threads, "memory": config.paint.max_memory_bytes})
    if not fits:
        cure = f"give at most {free_bytes // 2**20}MiB, or free some"
        raise ConfigError("max_memory", config.paint.max_memory, "is more than this machine has free", cure)
    return min(fits, config.num_actors or fits), threads
