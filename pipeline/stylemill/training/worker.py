"""The training function of one worker: it owns the device, the resume and the loop around ``train_step``."""

from __future__ import annotations

import hashlib
import io
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
import ray.train
import ray.train.torch
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from PIL import Image

from stylemill.config import parse_size
from stylemill.errors import StylemillError, TrainingError
from stylemill.nn.loss_networks import build_loss_network
from stylemill.nn.loss_weights import LossWeights
from stylemill.nn.losses import style_target
from stylemill.nn.pixels import normalize
from stylemill.nn.precision import DTYPES, resolve_precision
from stylemill.nn.transformer_net import TransformerNet
from stylemill.storage import Storage
from stylemill.style_model import from_bytes
from stylemill.training.checkpoint import Checkpoints, CheckpointWriter, TrainState
from stylemill.training.config import TrainConfig
from stylemill.training.data import Batches, Content, LeftOut
from stylemill.training.export import export_style
from stylemill.training.layout import TrainLayout
from stylemill.training.ray_backend import PreemptionNotice
from stylemill.training.recorder import NUM_SAMPLES, Recorder
from stylemill.training.schedule import Sampler, one_cycle
from stylemill.training.train_step import ReducedNet, Request, StepSetup, architecture_of, frozen_teacher, train_step

log = logging.getLogger(__name__)

MAX_SKIPPED_IN_A_ROW = 3
"""So many updates in a row that are not finite send the run back to its last checkpoint, at half the rate."""
MAX_ROLL_BACKS = 4


@dataclass(frozen=True, kw_only=True)
class TrainJob:
    """What every worker must know."""

    config: TrainConfig
    layout: TrainLayout
    style_png: bytes
    style_sha256: str
    content: tuple[str, ...]
    warm_start: bytes | None
    teacher: bytes | None
    loss_weights: bytes | None
    cpus_per_worker: int


class _Unstable(Exception):
    """Several updates in a row were not finite, or the weights at the end are not."""


def train_worker(parameters: dict[str, Any]) -> None:
    """Train until the last step; called by Ray on every worker, again after every failure.

    Args:
        parameters: ``job``, a ``TrainJob``, and ``tracker``, the run's ``TrainTracker``.
    """
    tracker = parameters["tracker"]
    if ray.get(tracker.failure.remote()) is not None:
        return  # Ray replaces failed workers whatever the reason; the driver raises this one
    try:
        Worker(parameters["job"], tracker).train()
    except StylemillError as error:
        ray.get(tracker.fail.remote(error))
        raise


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
        torch.manual_seed(job.config.seed)
        self._device = ray.train.torch.get_device() if job.config.device == "cuda" else torch.device("cpu")
        self._storage = Storage(job.config.storage)
        self._checkpoints = Checkpoints(self._storage, job.layout.checkpoints_uri)
        self._state = TrainState.fresh(self._initial_net())
        self._sampler = Sampler(len(job.content), job.config.seed)
        self._content = self._open_content()
        self._batches = Batches(self._content, self._sampler, self._share)
        self._setup = self._build_setup()
        self._start: int | None = None
        damaged: list[str] = []
        if self._rank == 0:
            self._start, damaged = self._checkpoints.begin_start()
        self._recorder = Recorder(
            self._config,
            job.layout,
            self._storage,
            tracker,
            None if self._start is None else self._writer(self._start),
            num_workers=self._num_workers,
            device=self._device,
            samples_NHWC=self._draw_samples() if self._rank == 0 else None,
        )
        for problem in damaged:
            self._recorder.note(problem)
        self._notice = PreemptionNotice()

    def train(self) -> None:
        """Resume where the newest checkpoint is, and train to the end, to a plateau, or until asked to stop."""
        self._resume()
        net = ReducedNet(self._state.net, self._setup.dtype)
        model = ray.train.torch.prepare_model(net) if self._num_workers > 1 else net
        is_ended = False
        while not is_ended:
            try:
                is_ended = self._advance(model)
                if is_ended and self._is_finished and not self._state.is_finite:
                    raise _Unstable
            except _Unstable:
                self._roll_back()
                is_ended = False
        self._batches.close()
        self._recorder.finish()
        if self._is_finished:
            self._export()
        self._recorder.show_last(self._state.step, is_finished=self._is_finished)
        ray.train.report({"step": self._state.step})

    @property
    def _is_finished(self) -> bool:
        is_plateau = self._recorder.plateau.is_reached(self._config.patience)
        return self._state.step >= self._config.steps or is_plateau

    def _advance(self, model: torch.nn.Module) -> bool:
        """Train on from where the state is; return True at the end of this start.

        Raises:
            _Unstable: too many updates in a row were not finite.
        """
        state, recorder = self._state, self._recorder
        recorder.show(state.step)
        if self._is_finished:
            return True
        for crops_NHWC, start_s, wait_s in _timed(self._batches.steps(state.step, self._config.steps)):
            batch_NCHW = normalize(torch.from_numpy(crops_NHWC).to(self._device, non_blocking=True))
            batch_NCHW = batch_NCHW.contiguous(memory_format=torch.channels_last)
            rate = state.rate_scale * one_cycle(state.step, self._config.steps, self._config.learning_rate)
            state.set_rate(rate)
            view = self._sampler.view(state.step, self._config.crop_px, self._config.least_view)
            result = train_step(model, state.optimizer, batch_NCHW, self._setup, view=view, request=self._request())
            state.count_step(result.is_finite, self._config.ema_decay)
            recorder.add(state.step, result, rate, seconds=time.perf_counter() - start_s, wait_s=wait_s)
            recorder.show(state.step)
            if state.num_skipped_in_a_row == MAX_SKIPPED_IN_A_ROW:
                raise _Unstable
            if self._leave_traces(result.request):
                return True
        return True

    def _request(self) -> Request:
        """Return what all workers shall do after the coming step; only the first one asks."""
        request = Request.NOTHING
        if self._rank == 0:
            if self._recorder.should_stop:
                request |= Request.STOP
            if self._notice.is_look_due:
                request |= Request.LOOK
        return request

    def _leave_traces(self, request: Request) -> bool:
        """Write what is due after a step; return True if this start ends here."""
        config, recorder, step = self._config, self._recorder, self._state.step
        is_last, is_due = step == config.steps, step % config.checkpoint_every == 0
        should_stop, is_preempted = Request.STOP in request, Request.LOOK in request and self._notice.look()
        if step % config.sample_every == 0 or is_last:
            recorder.sample(self._state)
        if is_due:
            recorder.end_period()
            if self._is_finished and not is_last:
                recorder.note(f"step {step}: stopped early, the loss has not fallen for a while")
        # After skipped updates the weights are those of a checkpoint that is there, or as bad as they can be.
        is_good = self._state.num_skipped_in_a_row == 0
        if is_last or (is_good and (is_due or should_stop or is_preempted)):
            recorder.checkpoint(self._state)
        if is_preempted:
            recorder.wait()
            recorder.note(f"step {step}: Ray announces that a node will be taken away; a checkpoint is written")
        return should_stop or self._is_finished

    def _resume(self) -> None:
        """Load the newest checkpoint on every worker, if there is one."""
        if self._num_workers > 1:
            dist.barrier()  # the first worker has taken its start number: all find the same newest checkpoint
        newest = self._checkpoints.newest()
        if newest is not None:
            self._state.load(newest.step, newest.tensors, newest.numbers)
            self._recorder.continue_from(newest)
            self._recorder.resumed_at = newest.step

    def _roll_back(self) -> None:
        """Return to the last good checkpoint (or the start) at half the rate.

        A checkpoint of the weights that have just failed is not good, so only those before the last update count.

        Raises:
            TrainingError: it has happened too often.
        """
        if self._state.rate_scale <= 2.0**-MAX_ROLL_BACKS:
            raise TrainingError(
                f"the loss is still not finite after {MAX_ROLL_BACKS} roll-backs; lower --learning-rate, or the weights"
            )
        rate_scale, num_skipped = self._state.rate_scale / 2, self._state.num_skipped
        self._recorder.wait()
        if self._num_workers > 1:
            dist.barrier()  # the first worker's last checkpoint is written: all find it
        newest = self._checkpoints.newest(before=self._state.step - self._state.num_skipped_in_a_row)
        if newest is not None:
            self._state.load(newest.step, newest.tensors, newest.numbers)
            self._recorder.continue_from(newest)
        else:
            fresh = TrainState.fresh(self._initial_net())
            self._state.load(0, fresh.to_tensors(), fresh.to_numbers())
            self._recorder.start_over()
        self._state.rate_scale, self._state.num_skipped = rate_scale, num_skipped
        if self._start is not None:
            self._checkpoints.discard_after(self._state.step)
        self._recorder.note(f"rolled back to step {self._state.step}, the rate is now x{rate_scale:g}")

    def _export(self) -> None:
        """Write the style model, on the first worker, unless a newer start has taken the run over."""
        if self._start is None:
            return
        self._checkpoints.check_is_newest(self._start)
        export_style(
            self._storage,
            self._job.layout,
            self._config,
            self._state,
            self._recorder.rows,
            loss_digest=self._loss_digest,
            style_sha256=self._job.style_sha256,
            teacher_sha256=None if self._job.teacher is None else hashlib.sha256(self._job.teacher).hexdigest(),
            num_content=len(self._job.content),
            left_out=ray.get(self._tracker.left_out.remote()),
        )

    def _writer(self, start: int) -> CheckpointWriter:
        return CheckpointWriter(self._checkpoints, start, self._config.keep_checkpoints)

    def _initial_net(self) -> TransformerNet:
        config = self._config
        if self._job.warm_start is not None:
            net = from_bytes(self._job.warm_start, source=str(config.warm_start)).build_network()
        else:
            net = TransformerNet(architecture_of(config))
            net.init_weights(config.seed)
        return net.train().to(self._device).to(memory_format=torch.channels_last)

    def _build_setup(self) -> StepSetup:
        config = self._config
        network = build_loss_network(
            config.loss_network, weights=self._job.loss_weights, source=config.loss_weights, device=self._device
        )
        self._loss_digest = network.digest()
        style_HWC = np.asarray(Image.open(io.BytesIO(self._job.style_png)))
        style_NCHW = normalize(torch.from_numpy(style_HWC.copy())[None].to(self._device))
        target = style_target(network, style_NCHW)
        dtype = DTYPES[resolve_precision(config.precision, self._device)]
        teacher = None
        if self._job.teacher is not None:
            teacher = frozen_teacher(self._job.teacher, str(config.teacher), dtype).to(self._device)
        return StepSetup(
            loss_network=network.to(dtype),
            target=target,
            weights=LossWeights(
                content=config.content_weight,
                style=config.style_weight,
                total_variation=config.tv_weight,
                grid=config.grid_weight,
            ),
            dtype=dtype,
            max_gradient_norm=config.max_gradient_norm,
            batch_size=config.batch_size,
            num_workers=self._num_workers,
            micro_batch_size=config.micro_batch_size or config.batch_size,
            teacher=teacher,
            teacher_weight=config.teacher_weight,
        )

    def _open_content(self) -> Content:
        config = self._config
        return Content(
            self._storage,
            self._job.content,
            crop_px=config.crop_px,
            short_side_px=round(config.oversize * config.crop_px),
            cache_bytes=parse_size("content_cache", config.content_cache),
            max_failed_fraction=config.max_failed_fraction,
            on_left_out=self._leave_out,
        )

    def _leave_out(self, entry: LeftOut) -> int:
        num_failed: int = ray.get(self._tracker.leave_out.remote(entry))
        return num_failed

    def _share(self, step: int) -> list[int]:
        return self._sampler.share(step, self._config.batch_size, self._rank, self._num_workers)

    def _draw_samples(self) -> NDArray[np.uint8]:
        """Return the crops of the run's first samples, whatever step this start begins with."""
        samples = [self._sampler.sample(index) for index in range(NUM_SAMPLES)]
        return np.stack([self._content.crop(sample) for sample in samples])


def _timed(batches: Iterator[NDArray[np.uint8]]) -> Iterator[tuple[NDArray[np.uint8], float, float]]:
    """Yield each batch with the time when it was asked for and the seconds that it took to come."""
    while True:
        start_s = time.perf_counter()
        batch_NHWC = next(batches, None)
        if batch_NHWC is None:
            return
        yield batch_NHWC, start_s, time.perf_counter() - start_s
