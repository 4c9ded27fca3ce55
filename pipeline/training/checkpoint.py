"""Checkpoints: a folder each, complete when its ``complete.json`` is there and every digest in it is right.

Every start of the training function takes the next number by conditional create and notes at which step it resumed.
That number is the fencing token: a checkpoint of an earlier start counts only up to the step at which the next one
resumed, so what a killed worker still uploads is never continued.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import re
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import safetensors.torch
from torch import Tensor

from pipeline.errors import CheckpointError, ObjectNotFound, RunConflict
from pipeline.storage import Storage, join
from pipeline.training.metrics import Row, metrics_from_parquet, metrics_to_parquet

log = logging.getLogger(__name__)

STATE, METRICS, COMPLETE = "state.safetensors", "metrics.parquet", "complete.json"
LEFTOVERS_S = 3600.0
"""Half-written files of this age belong to a process that was killed."""
_START = re.compile(r"(\d{6})\.json")
_FOLDER = re.compile(r"step-(\d{8})\.start-(\d{6})")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """One complete checkpoint, read and checked."""

    step: int
    tensors: dict[str, Tensor]
    numbers: dict[str, Any]
    """Plain values beside the tensors."""
    metrics: list[dict[str, Any]]
    """Rows of steps 1 to ``step``."""


class Checkpoints:
    """The checkpoints of one run.

    Args:
        storage: where the run is.
        prefix_uri: folder of its checkpoints.
    """

    def __init__(self, storage: Storage, prefix_uri: str) -> None:
        self._storage = storage
        self._prefix_uri = prefix_uri

    def begin_start(self) -> tuple[int, list[str]]:
        """Take the next start number, noting at which step it resumes.

        Returns:
            The number, and one sentence for each damaged checkpoint that is left out for good.
        """
        while True:
            starts = self._starts()
            newest, problems = self._newest(starts)
            self._storage.remove_leftovers(self._prefix_uri, older_than_s=LEFTOVERS_S)
            number = max(starts, default=0) + 1
            note = json.dumps({"resumed_at": newest.step if newest else 0}).encode()
            if self._storage.create_bytes(self._start_uri(number), note):
                return number, problems

    def check_is_newest(self, start: int) -> None:
        """Raise RunConflict if a newer start has taken the run over."""
        newest = max(self._starts(), default=start)
        if newest > start:
            raise RunConflict(f"start {newest} of this run has taken over from start {start}, which stops")

    def newest(self, before: float = math.inf) -> Checkpoint | None:
        """Return the newest checkpoint of this run's lineage that is complete and undamaged, or None.

        Args:
            before: only checkpoints of earlier steps count.
        """
        return self._newest(self._starts(), before)[0]

    def _newest(self, starts: dict[int, int], before: float = math.inf) -> tuple[Checkpoint | None, list[str]]:
        problems: list[str] = []
        for name in self._lineage(starts, before):
            try:
                return self._read(name), problems
            except CheckpointError as error:
                problems.append(f"checkpoint {name} is left out: {error}")
                log.warning(problems[-1])
        return None, problems

    def _starts(self) -> dict[int, int]:
        """Return the step at which each start resumed."""
        found = self._storage.list_objects(join(self._prefix_uri, "starts"))
        return {
            int(match[1]): json.loads(self._storage.read_bytes(item.uri))["resumed_at"]
            for item in found
            if (match := _START.fullmatch(item.key))
        }

    def _lineage(self, starts: dict[int, int], before: float = math.inf) -> Iterator[str]:
        """Yield the folders of this run's lineage with steps below ``before``, newest first."""
        by_start: dict[int, list[tuple[int, str]]] = {}
        for name, step, start in self._folders():
            by_start.setdefault(start, []).append((step, name))
        limit = math.inf
        for start in sorted(set(by_start) | set(starts), reverse=True):
            for step, name in sorted(by_start.get(start, []), reverse=True):
                if step <= limit and step < before:
                    yield name
            limit = min(limit, starts.get(start, 0))

    def _folders(self) -> list[tuple[str, int, int]]:
        names = {found.key.split("/")[0] for found in self._storage.list_objects(self._prefix_uri)}
        matches = [match for match in map(_FOLDER.fullmatch, sorted(names)) if match]
        return [(match[0], int(match[1]), int(match[2])) for match in matches]

    def _read(self, name: str) -> Checkpoint:
        folder = join(self._prefix_uri, name)
        try:
            complete = json.loads(self._storage.read_bytes(join(folder, COMPLETE)))
            step, numbers, digests = complete["step"], complete["numbers"], complete["sha256"]
            digest_of = {file: digests[file] for file in (STATE, METRICS)}
            files = {file: self._storage.read_bytes(join(folder, file)) for file in digest_of}
        except ObjectNotFound as error:
            raise CheckpointError(f"it is not complete ({error})") from error
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"its {COMPLETE} is damaged ({error})") from error
        for file, sha256 in digest_of.items():
            if hashlib.sha256(files[file]).hexdigest() != sha256:
                raise CheckpointError(f"{file} is not what was written (its SHA-256 differs)")
        return Checkpoint(
            step=step,
            tensors=safetensors.torch.load(files[STATE]),
            numbers=numbers,
            metrics=metrics_from_parquet(files[METRICS]),
        )

    def write(
        self, start: int, step: int, tensors: dict[str, Tensor], numbers: dict[str, Any], metrics: list[Row]
    ) -> None:
        """Write one checkpoint; its completion marker goes last."""
        folder = join(self._prefix_uri, f"step-{step:08d}.start-{start:06d}")
        files = {STATE: safetensors.torch.save(tensors), METRICS: metrics_to_parquet(metrics)}
        for file, data in files.items():
            self._storage.write_bytes(join(folder, file), data, durable=True)
        digests = {file: hashlib.sha256(data).hexdigest() for file, data in files.items()}
        complete = json.dumps({"step": step, "numbers": numbers, "sha256": digests}, indent=1).encode()
        self._storage.write_bytes(join(folder, COMPLETE), complete, durable=True)

    def keep_newest(self, count: int, start: int) -> None:
        """Remove all checkpoints but the newest ``count`` complete ones of the lineage; torn and late ones go too.

        Args:
            count: how many are kept.
            start: who cleans up. What newer starts write is theirs: it may look torn because it is under way.
        """
        kept: list[str] = []
        for name in self._lineage(self._starts()):
            if len(kept) < count and self._storage.exists(join(self._prefix_uri, name, COMPLETE)):
                kept.append(name)
        for name, _, written_by in self._folders():
            if name not in kept and written_by <= start:
                self._remove(name)

    def discard_after(self, step: int) -> None:
        """Remove the checkpoints of later steps, which a roll-back has taken back."""
        for name, of_step, _ in self._folders():
            if of_step > step:
                self._remove(name)

    def _remove(self, name: str) -> None:
        # The marker goes first: a folder without it is no checkpoint.
        for file in (COMPLETE, STATE, METRICS):
            self._storage.delete(join(self._prefix_uri, name, file))
        self._storage.remove_leftovers(join(self._prefix_uri, name))

    def _start_uri(self, number: int) -> str:
        return join(self._prefix_uri, "starts", f"{number:06d}.json")


class CheckpointWriter:
    """Uploads checkpoints from a thread, one at a time, while training goes on.

    Args:
        checkpoints: of the run.
        start: number of this start.
        keep: how many checkpoints are kept.
    """

    def __init__(self, checkpoints: Checkpoints, start: int, keep: int) -> None:
        self._checkpoints = checkpoints
        self._start = start
        self._keep = keep
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._waiting: Future[None] | None = None

    def submit(self, step: int, tensors: dict[str, Tensor], numbers: dict[str, Any], metrics: list[Row]) -> None:
        """Begin to write a checkpoint, once the one before it is written; raises what that one raised.

        Args:
            step: updates so far.
            tensors: copies that nobody changes any more.
            numbers: plain values.
            metrics: rows of all steps so far; a copy.
        """
        self.wait()
        self._waiting = self._thread.submit(self._write, step, tensors, numbers, metrics)

    def _write(self, step: int, tensors: dict[str, Tensor], numbers: dict[str, Any], metrics: list[Row]) -> None:
        self._checkpoints.write(self._start, step, tensors, numbers, metrics)
        self._checkpoints.keep_newest(self._keep, self._start)

    def wait(self) -> None:
        """Wait until everything is written; raises what went wrong."""
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            waiting.result()
