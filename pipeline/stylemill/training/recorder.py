"""What a training run writes and reports while it runs: metrics, progress, sample grids, checkpoints.

Every worker has a ``Recorder`` and keeps the rows of all steps, so that each can resume or roll back. Only the first
worker's recorder has a checkpoint writer; the others write and report nothing.
"""

from __future__ import annotations

import io
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import ray
import torch
from PIL import Image
from torch import Tensor

from stylemill.nn.pixels import deprocess, normalize
from stylemill.nn.transformer_net import TransformerNet
from stylemill.process import peak_memory_bytes
from stylemill.storage import Storage
from stylemill.training.checkpoint import Checkpoint, CheckpointWriter, TrainState
from stylemill.training.config import TrainConfig
from stylemill.training.layout import LeftOutImage, Row, TrainLayout, metrics_to_parquet
from stylemill.training.schedule import Plateau
from stylemill.training.tensorboard import EventFiles
from stylemill.training.tracker import TrainMeters, TrainProgress
from stylemill.training.train_step import StepResult

NUM_SAMPLES = 4
MAX_SAMPLE_STYLES = 8
"""Styles of the network that a sample grid shows."""
JPEG_QUALITY = 88
PROGRESS_PERIOD_S = 0.5
WINDOW_STEPS = 20
"""Steps over which loss and throughput are averaged for the progress line."""


@torch.no_grad()
def sample_grid(net: TransformerNet, weights: dict[str, Tensor], crops_NHWC: Tensor) -> bytes:
    """Return a JPEG with the crops in the upper row and, below them, what the network paints of them in each style.

    Args:
        net: the network in training; not changed.
        weights: parameters and buffers to use instead of the network's, by name.
        crops_NHWC: (N, H, W, 3) uint8.
    """
    device = next(iter(weights.values())).device
    was_training = net.training
    net.eval()  # batch norm must neither use nor record the statistics of these crops
    batch_NCHW = normalize(crops_NHWC.to(device))
    painted = [crops_NHWC]
    for style in range(min(net.num_styles, MAX_SAMPLE_STYLES)):
        styles_N = None if net.num_styles == 1 else torch.full((len(batch_NCHW),), style, device=device)
        painted_NCHW = torch.func.functional_call(net, weights, (batch_NCHW, styles_N))
        painted.append(deprocess(painted_NCHW)[:, : crops_NHWC.shape[1], : crops_NHWC.shape[2]].cpu())
    net.train(was_training)
    rows = [np.concatenate(list(images_NHWC.numpy()), axis=1) for images_NHWC in painted]
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate(rows, axis=0)).save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


class Recorder:
    """Keeps the rows of all steps on every worker; the first worker also writes and reports.

    Args:
        config: of the run.
        layout: of the run.
        storage: holds the run.
        tracker: receives the progress.
        writer: uploads checkpoints; None on all workers except the first.
        num_workers: of this start.
        device: whose peak memory is recorded.
        samples_NHWC: uint8 crops of the sample grids, or None to write no grids.
    """

    def __init__(
        self,
        config: TrainConfig,
        layout: TrainLayout,
        storage: Storage,
        tracker: ray.actor.ActorHandle,
        writer: CheckpointWriter | None,
        *,
        num_workers: int,
        device: torch.device,
        samples_NHWC: np.ndarray | None,
    ) -> None:
        self._config, self._layout, self._storage = config, layout, storage
        self._tracker, self._writer, self._num_workers, self._device = tracker, writer, num_workers, device
        self._samples_NHWC = samples_NHWC
        self._event_files: EventFiles | None = None
        if config.tensorboard and writer is not None:
            self._event_files = EventFiles(storage, layout.tensorboard_uri, config.batch_size)
        self._meters = (
            None
            if writer is None
            else TrainMeters(config.style_name, layout.out, steps=config.steps, batch_size=config.batch_size)
        )
        self.rows: list[Row] = []
        self.plateau = Plateau()
        self.resumed_at = 0
        self._events: list[str] = []
        self._pace: deque[tuple[float, float]] = deque(maxlen=WINDOW_STEPS)
        self._last_report_s = 0.0
        self._reply: Any = None
        """Reference to the tracker's reply to the newest report: whether to stop."""

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue with the rows of a checkpoint."""
        self.rows = list(checkpoint.metrics)
        self.plateau = Plateau(**checkpoint.numbers["plateau"])
        if self._event_files is not None:
            self._event_files.continue_after(checkpoint.step)

    def reset(self) -> None:
        """Drop all rows: the run continues at its first step."""
        self.rows, self.plateau = [], Plateau()
        if self._event_files is not None:
            self._event_files.continue_after(0)

    def add_event(self, event: str) -> None:
        """Add a message for the user to the progress; the next ``report`` is sent at once."""
        self._events.append(event)
        self._last_report_s = 0.0

    def add(self, step: int, result: StepResult, rate: float, *, seconds: float, wait_s: float) -> None:
        """Record one step.

        Args:
            step: of the row, from 1.
            result: of the step.
            rate: learning rate of the step.
            seconds: duration of the step, waiting included.
            wait_s: seconds of it spent waiting for the batch.
        """
        self._pace.append((seconds, wait_s))
        self.rows.append(
            {
                "step": step,
                "loss": result.loss,
                "content_loss": result.content_loss,
                "style_loss": result.style_loss,
                "tv_loss": result.tv_loss,
                "grid_loss": result.grid_loss,
                "lattice_loss": result.lattice_loss,
                "teacher_loss": None if self._config.teacher is None else result.teacher_loss,
                "steady_loss": result.steady_loss if self._config.steady_weight else None,
                "photo_loss": result.photo_loss if self._config.with_photo else None,
                "gradient_norm": result.gradient_norm,
                "learning_rate": rate,
                "skipped": not result.is_finite,
                "images_per_s": self._config.batch_size / seconds,
                "data_wait_s": wait_s,
                "peak_memory_bytes": peak_memory_bytes(self._device),
            }
        )
        if self._meters is not None:
            self._meters.count(step, result.loss, is_finite=result.is_finite, seconds=seconds, wait_s=wait_s)
        if not result.is_finite:
            self.add_event(f"step {step}: loss or gradient is not finite, the update was skipped")

    @property
    def should_stop(self) -> bool:
        """Whether the driver has asked to stop, by the reply to the newest report."""
        if self._reply is None or not ray.wait([self._reply], timeout=0)[0]:
            return False
        return bool(ray.get(self._reply))

    def report(self, step: int) -> None:
        """Send the progress to the tracker, at most twice a second."""
        if time.monotonic() - self._last_report_s >= PROGRESS_PERIOD_S:
            self._send_progress(step, is_finished=False)

    def report_end(self, step: int, *, is_finished: bool) -> None:
        """Send the progress at the end of this start, and wait until the tracker has it."""
        self._send_progress(step, is_finished=is_finished)
        if self._reply is not None:
            ray.get(self._reply)

    def _send_progress(self, step: int, *, is_finished: bool) -> None:
        if self._writer is None:
            return
        self._last_report_s = time.monotonic()
        losses = [row["loss"] for row in self.rows[-WINDOW_STEPS:]]
        seconds = sum(pace[0] for pace in self._pace)
        progress = TrainProgress(
            step=step,
            steps=self._config.steps,
            resumed_at=self.resumed_at,
            num_workers=self._num_workers,
            batch_size=self._config.batch_size,
            loss=sum(losses) / len(losses) if losses else float("nan"),
            images_per_s=self._config.batch_size * len(self._pace) / seconds if seconds else 0.0,
            data_wait_fraction=sum(pace[1] for pace in self._pace) / seconds if seconds else 0.0,
            events=tuple(self._events),
            is_finished=is_finished,
        )
        self._reply = self._tracker.update.remote(progress)

    def update_plateau(self) -> None:
        """Update the plateau with the losses since the last regular checkpoint; call only at regular checkpoints."""
        recent = [row["loss"] for row in self.rows[-self._config.checkpoint_every :] if not row["skipped"]]
        self.plateau = self.plateau.after(recent)

    def write_checkpoint(self, state: TrainState, left_out: Sequence[Sequence[LeftOutImage]]) -> None:
        """Start writing a checkpoint in the background, and write the metrics so far.

        Args:
            state: after the newest step.
            left_out: content images that each worker leaves out.
        """
        if self._writer is None:
            return
        numbers = state.to_numbers() | {
            "plateau": vars(self.plateau),
            "samples_seen": state.step * self._config.batch_size,
            "left_out": [[asdict(entry) for entry in entries] for entries in left_out],
        }
        self._writer.submit(state.step, state.to_tensors(), numbers, list(self.rows))
        self._write_rows(self._writer)

    def write_samples(self, state: TrainState) -> None:
        """Write the sample grid of the averaged weights; its crops are the same at every step."""
        if self._writer is not None and self._samples_NHWC is not None:
            self._writer.check()
            grid = sample_grid(state.net, state.average, torch.from_numpy(self._samples_NHWC))
            self._storage.write_bytes(self._layout.sample_uri(state.step), grid)
            if self._event_files is not None:
                self._event_files.add_grid(state.step, grid)

    def wait(self) -> None:
        """Wait until the newest checkpoint is written; raise its error."""
        if self._writer is not None:
            self._writer.wait()

    def finish(self) -> None:
        """Wait for the newest checkpoint and write all rows."""
        self.wait()
        if self._writer is not None:
            self._write_rows(self._writer)

    def _write_rows(self, writer: CheckpointWriter) -> None:
        writer.check()
        self._storage.write_bytes(self._layout.metrics_uri, metrics_to_parquet(self.rows))
        if self._event_files is not None:
            self._event_files.write(self.rows)
