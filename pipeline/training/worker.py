"""The training function of one worker: it owns the device, checkpoints, metrics and the loop around ``train_step``."""

from __future__ import annotations

import io
import logging
import os
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
import ray.train
import ray.train.torch
import torch
import torch.distributed as dist
from PIL import Image
from torch import nn

from pipeline.config import parse_size
from pipeline.nn.loss_networks.build import build_loss_network
from pipeline.nn.losses import LossWeights, style_target
from pipeline.nn.pixels import normalize
from pipeline.nn.precision import resolve_precision
from pipeline.nn.transformer_net import Architecture, TransformerNet
from pipeline.storage import Storage
from pipeline.style_model import from_bytes
from pipeline.training.batches import Batches
from pipeline.training.checkpoint import Checkpoint, Checkpoints, CheckpointWriter
from pipeline.training.config import TrainConfig
from pipeline.training.content import Content
from pipeline.training.export import export_style
from pipeline.training.layout import TrainLayout
from pipeline.training.memory import peak_memory_bytes
from pipeline.training.metrics import Row, metrics_to_parquet
from pipeline.training.sampler import Sampler
from pipeline.training.samples import NUM_SAMPLES, sample_grid
from pipeline.training.schedule import one_cycle
from pipeline.training.state import TrainState
from pipeline.training.tracker import TrainProgress
from pipeline.training.train_step import StepResult, StepSetup, train_step

log = logging.getLogger(__name__)

MAX_SKIPPED_IN_A_ROW = 3
"""So many updates in a row that are not finite send the run back to its last checkpoint, at half the rate."""
MAX_ROLL_BACKS = 4
PROGRESS_PERIOD_S = 0.5
LOSS_WINDOW = 20


@dataclass(frozen=True, kw_only=True)
class TrainJob:
    """What every worker must know."""

    config: TrainConfig
    layout: TrainLayout
    style_png: bytes
    style_sha256: str
    content: tuple[str, ...]
    warm_start: bytes | None
    cpus_per_worker: int


class Diverged(RuntimeError):
    """Training stays without finite losses after several roll-backs."""


def train_worker(parameters: dict[str, Any]) -> None:
    """Train until the last step; called by Ray on every worker, again after every failure.

    Args:
        parameters: ``job``, a ``TrainJob``, and ``tracker``, the run's ``TrainTracker``.
    """
    Worker(parameters["job"], parameters["tracker"]).train()


class Worker:
    """One start of the training function on one worker.

    Args:
        job: the run.
        tracker: takes the progress of the first worker.
    """

    def __init__(self, job: TrainJob, tracker: ray.actor.ActorHandle) -> None:
        context = ray.train.get_context()
        self._job, self._config, self._tracker = job, job.config, tracker
        self._rank, self._num_workers = context.get_world_rank(), context.get_world_size()
        torch.set_num_threads(job.cpus_per_worker)
        self._device = ray.train.torch.get_device() if job.config.device == "cuda" else torch.device("cpu")
        self._storage = Storage(job.config.storage)
        self._checkpoints = Checkpoints(self._storage, job.layout.checkpoints_uri)
        self._state = TrainState.fresh(self._initial_net())
        self._metrics: list[Row] = []
        self._events: list[str] = []
        self._writer: CheckpointWriter | None = None
        self._best_loss, self._checkpoints_without_gain = float("inf"), 0

    def _initial_net(self) -> TransformerNet:
        config = self._config
        if self._job.warm_start is not None:
            net = from_bytes(self._job.warm_start, source=str(config.warm_start)).build_network()
        else:
            net = TransformerNet(Architecture(width=config.width, upsampling=config.upsampling))
            net.init_weights(config.seed)
        return net.train().to(self._device).to(memory_format=torch.channels_last)

    def train(self) -> None:
        """Resume where the newest checkpoint is, and train to the end."""
        resumed_at = self._resume()
        setup, batches = self._setup(), self._batches()
        model = ray.train.torch.prepare_model(self._state.net) if self._num_workers > 1 else self._state.net
        pace = _Pace(self, resumed_at)
        first, roll_backs = self._state.step, 0
        while first < self._config.steps:
            # Steps may be done again after a roll-back; everything else goes straight through.
            skipped_in_a_row = 0
            for crops_NHWC in pace.timed(batches.steps(first, self._config.steps)):
                batch_NCHW = normalize(torch.from_numpy(crops_NHWC).to(self._device, non_blocking=True))
                result = self._step(model, batch_NCHW.contiguous(memory_format=torch.channels_last), setup)
                pace.note(result)
                skipped_in_a_row = 0 if result.is_finite else skipped_in_a_row + 1
                if skipped_in_a_row == MAX_SKIPPED_IN_A_ROW:
                    break
                if self._after_step(crops_NHWC):
                    first = self._config.steps
                    break
            else:
                break
            if skipped_in_a_row == MAX_SKIPPED_IN_A_ROW:
                roll_backs += 1
                first = self._roll_back(roll_backs)
        batches.close()
        self._finish(resumed_at)
        ray.train.report({"step": self._state.step})

    def _resume(self) -> int:
        """Load the newest checkpoint on every worker; return its step, or 0."""
        if self._rank == 0:
            start, newest = self._checkpoints.begin_start()
            self._writer = CheckpointWriter(self._checkpoints, start, self._config.keep_checkpoints)
        if self._num_workers > 1:
            dist.barrier()  # the first worker has taken its start number: all find the same newest checkpoint
        if self._rank != 0:
            newest = self._checkpoints.newest()
        if newest is None:
            return 0
        self._load(newest)
        return newest.step

    def _load(self, checkpoint: Checkpoint) -> None:
        self._state.load_tensors(checkpoint.tensors)
        self._state.step = checkpoint.step
        self._state.rate_scale = checkpoint.numbers["rate_scale"]
        self._state.num_skipped = checkpoint.numbers["num_skipped"]
        self._best_loss = checkpoint.numbers["best_loss"]
        self._checkpoints_without_gain = checkpoint.numbers["checkpoints_without_gain"]
        self._metrics = list(checkpoint.metrics)

    def _setup(self) -> StepSetup:
        config = self._config
        weights = self._storage.read_bytes(config.loss_weights) if config.loss_weights else None
        network = build_loss_network(
            config.loss_network, weights=weights, source=config.loss_weights, device=self._device
        )
        self._loss_digest = network.digest()
        style_HWC = np.asarray(Image.open(io.BytesIO(self._job.style_png)))
        style_NCHW = normalize(torch.from_numpy(style_HWC.copy())[None].to(self._device))
        is_reduced = resolve_precision(config.precision, self._device) == "bfloat16"
        per_worker = -(-config.batch_size // self._num_workers)
        return StepSetup(
            loss_network=network,
            target=style_target(network, style_NCHW),
            weights=LossWeights(
                content=config.content_weight, style=config.style_weight, total_variation=config.tv_weight
            ),
            autocast=lambda: torch.autocast(self._device.type, torch.bfloat16, enabled=is_reduced),
            max_gradient_norm=config.max_gradient_norm,
            batch_size=config.batch_size,
            num_workers=self._num_workers,
            micro_batch_size=config.micro_batch_size or per_worker,
        )

    def _batches(self) -> Batches:
        config = self._config
        content = Content(
            self._storage,
            self._job.content,
            crop_px=config.crop_px,
            short_side_px=round(config.oversize * config.crop_px),
            cache_bytes=parse_size("content_cache", config.content_cache),
            max_failed_fraction=config.max_failed_fraction,
        )
        self._content = content
        sampler = Sampler(len(self._job.content), config.seed)
        return Batches(
            content, sampler, lambda step: sampler.share(step, config.batch_size, self._rank, self._num_workers)
        )

    def _step(self, model: nn.Module, batch_NCHW: torch.Tensor, setup: StepSetup) -> StepResult:
        config, state = self._config, self._state
        rate = state.rate_scale * one_cycle(state.step, config.steps, config.learning_rate)
        for group in state.optimizer.param_groups:
            group["lr"] = rate
        result = train_step(model, state.optimizer, batch_NCHW, setup)
        state.step += 1
        if result.is_finite:
            state.update_average(config.ema_decay)
        else:
            state.num_skipped += 1
            self._events.append(f"step {state.step}: loss or gradient is not finite, the update was skipped")
        self._last_rate = rate
        return result

    def record(self, result: StepResult, seconds: float, wait_s: float) -> None:
        """Add one step's row to the metrics."""
        self._metrics.append(
            {
                "step": self._state.step,
                "loss": result.loss,
                "content_loss": result.content_loss,
                "style_loss": result.style_loss,
                "tv_loss": result.tv_loss,
                "gradient_norm": result.gradient_norm,
                "learning_rate": self._last_rate,
                "skipped": not result.is_finite,
                "images_per_s": self._config.batch_size / seconds,
                "data_wait_s": wait_s,
                "peak_memory_bytes": peak_memory_bytes(self._device),
            }
        )

    def show(self, resumed_at: int, images_per_s: float, wait_fraction: float) -> None:
        """Tell the driver how far this is."""
        if self._rank == 0:
            losses = [row["loss"] for row in self._metrics[-LOSS_WINDOW:]]
            self._tracker.update.remote(
                TrainProgress(
                    step=self._state.step,
                    steps=self._config.steps,
                    resumed_at=resumed_at,
                    num_workers=self._num_workers,
                    batch_size=self._config.batch_size,
                    loss=sum(losses) / len(losses) if losses else float("nan"),
                    images_per_s=images_per_s,
                    data_wait_fraction=wait_fraction,
                    events=tuple(self._events),
                )
            )

    def _after_step(self, crops_NHWC: np.ndarray) -> bool:
        """Write what is due after a step; tell whether training should stop early."""
        config, step = self._config, self._state.step
        if self._rank == 0 and (step % config.sample_every == 0 or step == config.steps):
            crops = torch.from_numpy(crops_NHWC[:NUM_SAMPLES].copy())
            self._storage.write_bytes(
                self._job.layout.sample_uri(step), sample_grid(self._state.net, self._state.average, crops)
            )
        if step % config.checkpoint_every and step != config.steps:
            return False
        stop = self._is_on_plateau()
        if self._writer is not None:
            self._writer.submit(step, self._state.to_tensors(), self._numbers(), list(self._metrics))
            self._storage.write_bytes(self._job.layout.metrics_uri, metrics_to_parquet(self._metrics))
        return stop

    def _numbers(self) -> dict[str, Any]:
        return {
            "rate_scale": self._state.rate_scale,
            "num_skipped": self._state.num_skipped,
            "best_loss": self._best_loss,
            "checkpoints_without_gain": self._checkpoints_without_gain,
            "samples_seen": self._state.step * self._config.batch_size,
        }

    def _is_on_plateau(self) -> bool:
        """Note whether the mean loss since the last checkpoint is the best so far; equal on all workers."""
        losses = [row["loss"] for row in self._metrics[-self._config.checkpoint_every :] if not row["skipped"]]
        mean = sum(losses) / len(losses) if losses else float("inf")
        if mean < self._best_loss:
            self._best_loss, self._checkpoints_without_gain = mean, 0
        else:
            self._checkpoints_without_gain += 1
        stop = 0 < self._config.patience <= self._checkpoints_without_gain
        if stop:
            self._events.append(f"step {self._state.step}: stopped early, the loss has not fallen for a while")
        return stop

    def _roll_back(self, roll_backs: int) -> int:
        """Return to the last good checkpoint (or the start) at half the rate; return the step to go on from."""
        if roll_backs > MAX_ROLL_BACKS:
            raise Diverged(f"the loss stays not finite after {MAX_ROLL_BACKS} roll-backs; lower --learning-rate")
        if self._writer is not None:
            self._writer.wait()
        if self._num_workers > 1:
            dist.barrier()
        rate_scale, skipped = self._state.rate_scale / 2, self._state.num_skipped
        newest = self._checkpoints.newest()
        if newest is None:
            fresh = TrainState.fresh(self._initial_net())
            self._state.load_tensors(fresh.to_tensors())
            self._state.step, self._metrics = 0, []
        else:
            self._load(newest)
        self._state.rate_scale, self._state.num_skipped = rate_scale, skipped
        self._events.append(f"rolled back to step {self._state.step}, the rate is now x{rate_scale:g}")
        return self._state.step

    def _finish(self, resumed_at: int) -> None:
        """Write the style model and the final metrics, once all checkpoints are written."""
        if self._writer is None:
            return
        self._writer.wait()
        self._storage.write_bytes(self._job.layout.metrics_uri, metrics_to_parquet(self._metrics))
        export_style(
            self._storage,
            self._job.layout,
            self._config,
            self._state,
            self._metrics,
            loss_digest=self._loss_digest,
            style_sha256=self._job.style_sha256,
            num_content=len(self._job.content),
            failed_content=dict(self._content.failed),
        )
        log.info("finished at step %d, resumed at %d, process %d", self._state.step, resumed_at, os.getpid())


class _Pace:
    """Measures steps, waits and rates, and passes them on now and then."""

    def __init__(self, worker: Worker, resumed_at: int) -> None:
        self._worker = worker
        self._resumed_at = resumed_at
        self._waits: deque[float] = deque(maxlen=100)
        self._seconds: deque[float] = deque(maxlen=100)
        self._step_start_s = time.perf_counter()
        self._shown_s = 0.0
        worker.show(resumed_at, 0.0, 0.0)

    def timed(self, batches: Any) -> Any:
        """Yield batches, measuring the wait for each."""
        iterator = iter(batches)
        while True:
            self._step_start_s = time.perf_counter()
            batch = next(iterator, None)
            if batch is None:
                return
            self._waits.append(time.perf_counter() - self._step_start_s)
            yield batch

    def note(self, result: StepResult) -> None:
        """Record the step that just ended."""
        now_s = time.perf_counter()
        self._seconds.append(now_s - self._step_start_s)
        self._worker.record(result, self._seconds[-1], self._waits[-1])
        if now_s - self._shown_s > PROGRESS_PERIOD_S:
            self._shown_s = now_s
            self._worker.show(self._resumed_at, self._worker_rate(), sum(self._waits) / max(1e-9, sum(self._seconds)))

    def _worker_rate(self) -> float:
        return self._worker._config.batch_size * len(self._seconds) / max(1e-9, sum(self._seconds))
