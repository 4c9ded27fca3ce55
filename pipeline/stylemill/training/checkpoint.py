"""The state of a training run, and its checkpoints under ``OUT/checkpoints``.

``TrainState`` is what changes from step to step: weights, optimizer, average and counters. ``Checkpoints`` reads and
writes it together with the metrics. Each checkpoint is one folder; it is complete once its ``complete.json`` exists and
every SHA-256 in that file matches. ``CheckpointWriter`` uploads from a thread while training continues.

Every start of the training function registers: it takes the next start number by conditional create and records the
step at which it resumes. The number is a fencing token. A checkpoint written by an earlier start is valid only up to
the step at which the next start resumed, so late uploads of a killed worker are never used. The checkpoints that are
valid by this rule are the run's lineage. A start that has been superseded neither uses nor removes what later ones
wrote, and does not remove what they resumed from.
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
import torch
from torch import Tensor

from stylemill.errors import CheckpointError, ObjectNotFound, RunConflict
from stylemill.nn.transformer_net import TransformerNet
from stylemill.storage import Storage, join
from stylemill.training.layout import Row, metrics_from_parquet, metrics_to_parquet

log = logging.getLogger(__name__)

STATE, METRICS, COMPLETE = "state.safetensors", "metrics.parquet", "complete.json"
LEFTOVERS_S = 3600.0
"""Half-written files of at least this age belong to a process that was killed."""
_START = re.compile(r"(\d{6})\.json")
_FOLDER = re.compile(r"step-(\d{8})\.start-(\d{6})")

_MODEL, _AVERAGE, _OPTIMIZER = "model.", "average.", "optimizer."
_SLOTS = ("step", "exp_avg", "exp_avg_sq")
_NUMBERS = ("rate_scale", "num_skipped", "num_skipped_in_a_row")


@dataclass(kw_only=True)
class TrainState:
    """The mutable state of one run; equal on all workers.

    Args:
        net: the network in training.
        optimizer: Adam over its parameters.
        average: exponential moving average of weights and batch-norm statistics, by name.
        step: updates attempted so far, including skipped ones.
        rate_scale: multiplier of the learning rate; halved by each roll-back.
        num_skipped: updates skipped because loss or gradient was not finite.
        num_skipped_in_a_row: updates skipped since the last one that was made.
    """

    net: TransformerNet
    optimizer: torch.optim.Adam
    average: dict[str, Tensor]
    step: int = 0
    rate_scale: float = 1.0
    num_skipped: int = 0
    num_skipped_in_a_row: int = 0

    @classmethod
    def fresh(cls, net: TransformerNet) -> TrainState:
        """Return the state before the first step."""
        optimizer = torch.optim.Adam([parameter for _, parameter in _learned(net)], betas=(0.9, 0.99))
        average = {name: tensor.detach().clone() for name, tensor in net.state_dict(keep_vars=True).items()}
        return cls(net=net, optimizer=optimizer, average=average)

    def set_rate(self, rate: float) -> None:
        """Set the learning rate of the next update."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def count_step(self, was_updated: bool, ema_decay: float) -> None:
        """Record a step: move the average after an update, count a skipped one."""
        self.step += 1
        self.num_skipped_in_a_row = 0 if was_updated else self.num_skipped_in_a_row + 1
        if was_updated:
            self.update_average(ema_decay)
        else:
            self.num_skipped += 1

    @torch.no_grad()
    def update_average(self, decay: float) -> None:
        """Move the average towards the weights, faster during the first steps, when it covers few updates."""
        decay = min(decay, (1 + self.step) / (10 + self.step))
        for name, parameter in self.net.state_dict(keep_vars=True).items():
            self.average[name].lerp_(parameter.detach(), 1 - decay)

    @property
    def is_finite(self) -> bool:
        """Whether all weights and their average are finite."""
        tensors = (*self.net.state_dict().values(), *self.average.values())
        return all(bool(tensor.isfinite().all()) for tensor in tensors)

    def digest(self) -> str:
        """Return the SHA-256 of everything that must be equal on all workers."""
        sha256 = hashlib.sha256(repr((self.step, self.to_numbers())).encode())
        tensors = self.to_tensors()
        for name in sorted(tensors.keys() - {"generator"}):
            tensor = tensors[name]
            sha256.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
        return sha256.hexdigest()

    def to_tensors(self) -> dict[str, Tensor]:
        """Return CPU copies of all tensors, and the state of torch's generator, by name."""
        tensors = {_MODEL + name: tensor for name, tensor in self.net.state_dict().items()}
        tensors |= {_AVERAGE + name: tensor for name, tensor in self.average.items()}
        names = [name for name, _ in _learned(self.net)]
        for index, slots in self.optimizer.state_dict()["state"].items():
            tensors |= {f"{_OPTIMIZER}{names[index]}.{slot}": tensor for slot, tensor in slots.items()}
        tensors = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
        return tensors | {"generator": torch.get_rng_state()}

    def to_numbers(self) -> dict[str, Any]:
        """Return the plain values except the step, by name."""
        return {name: getattr(self, name) for name in _NUMBERS}

    def load(self, step: int, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
        """Restore the state after a step.

        Args:
            step: updates attempted by then.
            tensors: from ``to_tensors``.
            numbers: from ``to_numbers``.

        Raises:
            KeyError, RuntimeError: the tensors belong to another network.
        """
        self._load_tensors(tensors)
        self.step = step
        for name in _NUMBERS:
            setattr(self, name, numbers[name])

    def _load_tensors(self, tensors: dict[str, Tensor]) -> None:
        self.net.load_state_dict(_with_prefix(tensors, _MODEL))
        for name, tensor in _with_prefix(tensors, _AVERAGE).items():
            self.average[name].copy_(tensor)
        slots = _with_prefix(tensors, _OPTIMIZER)
        saved = self.optimizer.state_dict()
        saved["state"] = {
            index: {slot: _laid_out_like(parameter, slots[f"{name}.{slot}"]) for slot in _SLOTS}
            for index, (name, parameter) in enumerate(_learned(self.net))
            if f"{name}.step" in slots
        }
        self.optimizer.load_state_dict(saved)
        torch.set_rng_state(tensors["generator"])


def _learned(net: TransformerNet) -> list[tuple[str, torch.nn.Parameter]]:
    """Return the parameters that training changes, in order, with their names."""
    return [(name, parameter) for name, parameter in net.named_parameters() if parameter.requires_grad]


def _with_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _laid_out_like(parameter: Tensor, slot: Tensor) -> Tensor:
    """Return an optimizer slot in its parameter's memory layout, which saving loses: the same loops process it."""
    return torch.empty_like(parameter).copy_(slot) if slot.shape == parameter.shape else slot


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """One complete checkpoint whose digests match."""

    name: str
    """Of its folder."""
    sha256: str
    """Of its ``complete.json``, which has the digests of the other files."""
    step: int
    tensors: dict[str, Tensor]
    numbers: dict[str, Any]
    """Plain values: those of ``TrainState.to_numbers`` and the recorder's."""
    metrics: list[dict[str, Any]]
    """Rows of steps 1 to ``step``."""


class Superseded(RunConflict):
    """A newer start has taken over the run."""

    def __init__(self, message: str, driver: str = "") -> None:
        super().__init__(message, driver)
        self.driver = driver
        """Of the newest start, as given to ``register_start``."""

    def __str__(self) -> str:
        return str(self.args[0])


class Checkpoints:
    """The checkpoints of one run.

    Args:
        storage: holds the run.
        prefix_uri: folder of the run's checkpoints.
    """

    def __init__(self, storage: Storage, prefix_uri: str) -> None:
        self._storage = storage
        self._prefix_uri = prefix_uri

    def register_start(self, driver: str = "") -> tuple[int, list[str]]:
        """Take the next start number and record the step at which this start resumes.

        Args:
            driver: identity of the process that started this worker; equal for all starts under it.

        Returns:
            The number, and one sentence for each damaged checkpoint, which is ignored from now on.
        """
        while True:
            starts = self._starts()
            newest, problems = self._newest(starts)
            self._storage.remove_leftovers(self._prefix_uri, older_than_s=LEFTOVERS_S)
            number = max(starts, default=0) + 1
            record = json.dumps({"resumed_at": newest.step if newest else 0, "driver": driver}).encode()
            if self._storage.create_bytes(self._start_uri(number), record):
                return number, problems

    def check_is_newest(self, start: int) -> None:
        """Raise Superseded if a newer start has taken over the run."""
        if not self._storage.exists(self._start_uri(start + 1)):
            return
        newest = max(self._starts())
        record = json.loads(self._storage.read_bytes(self._start_uri(newest)))
        message = f"start {newest} of this run has taken over from start {start}, which stops"
        raise Superseded(message, record.get("driver", ""))

    def newest(self, before: float = math.inf, until: float = math.inf) -> Checkpoint | None:
        """Return the newest complete and undamaged checkpoint of the lineage, or None.

        Args:
            before: consider only checkpoints of earlier steps.
            until: number of a start; consider only what it and earlier ones wrote.
        """
        return self._newest(self._starts(), before, until)[0]

    def _newest(
        self, starts: dict[int, int], before: float = math.inf, until: float = math.inf
    ) -> tuple[Checkpoint | None, list[str]]:
        problems: list[str] = []
        for name in self._lineage(starts, before, until):
            try:
                return self.read(name), problems
            except CheckpointError as error:
                problems.append(f"checkpoint {name} is ignored: {error}")
                log.warning(problems[-1])
        return None, problems

    def _starts(self) -> dict[int, int]:
        """Return the step at which each start resumed, by start number."""
        found = self._storage.list_objects(join(self._prefix_uri, "starts"))
        return {
            int(match[1]): json.loads(self._storage.read_bytes(item.uri))["resumed_at"]
            for item in found
            if (match := _START.fullmatch(item.key))
        }

    def _lineage(self, starts: dict[int, int], before: float = math.inf, until: float = math.inf) -> Iterator[str]:
        """Yield the folders of the lineage of start ``until`` with steps below ``before``, newest first."""
        by_start: dict[int, list[tuple[int, str]]] = {}
        for name, step, start in self._folders():
            by_start.setdefault(start, []).append((step, name))
        limit = math.inf
        for start in sorted((start for start in set(by_start) | set(starts) if start <= until), reverse=True):
            for step, name in sorted(by_start.get(start, []), reverse=True):
                if step <= limit and step < before:
                    yield name
            limit = min(limit, starts.get(start, 0))

    def _folders(self) -> list[tuple[str, int, int]]:
        """Return name, step and start number of every checkpoint folder."""
        names = {found.key.split("/")[0] for found in self._storage.list_objects(self._prefix_uri)}
        matches = [match for match in map(_FOLDER.fullmatch, sorted(names)) if match]
        return [(match[0], int(match[1]), int(match[2])) for match in matches]

    def read(self, name: str) -> Checkpoint:
        """Return the checkpoint of a folder.

        Raises:
            CheckpointError: it is incomplete or damaged.
        """
        folder = join(self._prefix_uri, name)
        try:
            stored = self._storage.read_bytes(join(folder, COMPLETE))
            complete = json.loads(stored)
            step, numbers, digests = complete["step"], complete["numbers"], complete["sha256"]
            digest_of = {file: digests[file] for file in (STATE, METRICS)}
            files = {file: self._storage.read_bytes(join(folder, file)) for file in digest_of}
        except ObjectNotFound as error:
            raise CheckpointError(f"it is incomplete ({error})") from error
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"its {COMPLETE} is damaged ({error})") from error
        for file, sha256 in digest_of.items():
            if hashlib.sha256(files[file]).hexdigest() != sha256:
                raise CheckpointError(f"{file} is damaged (its SHA-256 differs)")
        return Checkpoint(
            name=name,
            sha256=hashlib.sha256(stored).hexdigest(),
            step=step,
            tensors=safetensors.torch.load(files[STATE]),
            numbers=numbers,
            metrics=metrics_from_parquet(files[METRICS]),
        )

    def write(
        self, start: int, step: int, tensors: dict[str, Tensor], numbers: dict[str, Any], metrics: list[Row]
    ) -> None:
        """Write one checkpoint; ``complete.json`` is written last."""
        folder = join(self._prefix_uri, f"step-{step:08d}.start-{start:06d}")
        files = {STATE: safetensors.torch.save(tensors), METRICS: metrics_to_parquet(metrics)}
        for file, data in files.items():
            self._storage.write_bytes(join(folder, file), data, durable=True)
        digests = {file: hashlib.sha256(data).hexdigest() for file, data in files.items()}
        complete = json.dumps({"step": step, "numbers": numbers, "sha256": digests}, indent=1).encode()
        self._storage.write_bytes(join(folder, COMPLETE), complete, durable=True)

    def keep_newest(self, count: int, start: int) -> None:
        """Remove all checkpoints except the newest ``count`` complete ones of the lineage.

        Args:
            count: number of checkpoints to keep.
            start: number of the calling start. Folders of newer starts stay: an incomplete one may still be written.
        """
        kept: list[str] = []
        for name in self._lineage(self._starts()):
            if len(kept) < count and self._storage.exists(join(self._prefix_uri, name, COMPLETE)):
                kept.append(name)
        for name, _, writer in self._folders():
            if name not in kept and writer <= start:
                self._remove(name)

    def discard_after(self, step: int, start: int) -> None:
        """Remove the checkpoints of later steps after a roll-back to ``step``.

        Args:
            step: to which the run has returned.
            start: number of the calling start. What newer starts wrote stays: they do not know of the roll-back.

        Raises:
            Superseded: there is a newer start, which may have resumed from what would be removed.
        """
        self.check_is_newest(start)
        for name, checkpoint_step, writer in self._folders():
            if checkpoint_step > step and writer <= start:
                self._remove(name)

    def _remove(self, name: str) -> None:
        # complete.json is removed first: a folder without it is not a checkpoint.
        for file in (COMPLETE, STATE, METRICS):
            self._storage.delete(join(self._prefix_uri, name, file))
        self._storage.remove_leftovers(join(self._prefix_uri, name))

    def _start_uri(self, number: int) -> str:
        return join(self._prefix_uri, "starts", f"{number:06d}.json")


class CheckpointWriter:
    """Uploads checkpoints from a thread, one at a time, while training continues.

    Args:
        checkpoints: of the run.
        start: number of this start.
        keep: number of checkpoints to keep.
    """

    def __init__(self, checkpoints: Checkpoints, start: int, keep: int) -> None:
        self._checkpoints = checkpoints
        self._start = start
        self._keep = keep
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._waiting: Future[None] | None = None

    def submit(self, step: int, tensors: dict[str, Tensor], numbers: dict[str, Any], metrics: list[Row]) -> None:
        """Start writing a checkpoint once the previous one is written; raise the error of the previous one.

        Args:
            step: updates attempted so far.
            tensors: copies that do not change any more.
            numbers: plain values.
            metrics: rows of all steps so far; a copy.
        """
        self.wait()
        self._waiting = self._thread.submit(self._write, step, tensors, numbers, metrics)

    def check(self) -> None:
        """Raise Superseded if a newer start has taken over the run; call it before writing what starts share."""
        self._checkpoints.check_is_newest(self._start)

    def _write(self, step: int, tensors: dict[str, Tensor], numbers: dict[str, Any], metrics: list[Row]) -> None:
        self.check()
        self._checkpoints.write(self._start, step, tensors, numbers, metrics)
        self._checkpoints.keep_newest(self._keep, self._start)

    def wait(self) -> None:
        """Wait until the submitted checkpoint is written; raise its error."""
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            waiting.result()
