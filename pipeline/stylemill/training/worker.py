"""The training function that Ray Train runs on every worker: set-up, resume, the loop around ``train_step``, export.

All workers do the same in lockstep. The first one (rank 0) also writes checkpoints, samples and metrics, reports the
progress, and decides with ``Request`` what all workers do after a step. On a failure Ray calls the function again on
new workers, which resume at the newest checkpoint.
"""

from __future__ import annotations

import hashlib
import io
import logging
import math
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import ray
import ray.train
import ray.train.torch
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from stylemill.config import parse_size
from stylemill.errors import CheckpointError, StylemillError, TrainingError
from stylemill.nn.loss_networks import build_loss_network
from stylemill.nn.loss_weights import LossWeights
from stylemill.nn.losses import style_target
from stylemill.nn.pixels import normalize
from stylemill.nn.precision import DTYPES, resolve_precision
from stylemill.nn.transformer_net import TransformerNet
from stylemill.storage import Storage
from stylemill.training.checkpoint import Checkpoint, Checkpoints, CheckpointWriter, Superseded, TrainState
from stylemill.training.data import Batches, Content
from stylemill.training.export import export_style
from stylemill.training.initial_net import begin_at_nearest, initial_net
from stylemill.training.layout import LeftOutImage
from stylemill.training.preflight import PreparedTraining
from stylemill.training.ray_backend import PreemptionNotice
from stylemill.training.recorder import NUM_SAMPLES, Recorder
from stylemill.training.schedule import Sampler, one_cycle
from stylemill.training.train_step import (
    ReducedPrecisionNet,
    Request,
    StepSetup,
    frozen_teacher,
    train_step,
)

log = logging.getLogger(__name__)

MAX_SKIPPED_IN_A_ROW = 3
"""Consecutive updates that are not finite, after which the run returns to its last checkpoint at half the rate."""
MAX_ROLL_BACKS = 4
"""Roll-backs after which training fails."""


class _Unstable(Exception):
    """Several consecutive updates were not finite, or the final weights are not."""


class _Disagreement(RuntimeError):
    """The workers have not loaded the same state. Ray starts them again, as after any error that is not our own."""


def train_worker(parameters: dict[str, Any]) -> None:
    """Train until the last step; Ray calls this on every worker, and again after every failure.

    Args:
        parameters: ``run``, a ``PreparedTraining``; ``tracker``, the actor handle of the run's ``TrainTracker``;
            ``threads``, the number of threads that torch uses; ``driver``, the identity of the driver.
    """
    tracker = parameters["tracker"]
    if ray.get(tracker.failure.remote()) is not None:
        return  # Ray restarts workers after any error; the driver raises this one
    try:
        worker = Worker(parameters["run"], tracker, parameters["driver"])
        worker.set_up(parameters["threads"])
        worker.train()
    except Superseded as error:
        # A worker that Ray has given up but that goes on must not end the start that replaced it under the same driver.
        if error.driver != parameters["driver"]:
            ray.get(tracker.fail.remote(error))
        raise
    except StylemillError as error:
        ray.get(tracker.fail.remote(error))
        raise


class Worker:
    """One start of the training function on one worker: create it, call ``set_up``, then ``train``.

    Args:
        run: as ``preflight.prepare`` returned it.
        tracker: receives the progress from the first worker, and left-out images from all.
        driver: identity of the driver, equal for all its starts.
    """

    def __init__(self, run: PreparedTraining, tracker: ray.actor.ActorHandle, driver: str) -> None:
        context, config = ray.train.get_context(), run.config
        self._run, self._config, self._tracker, self._driver = run, config, tracker, driver
        self._rank, self._num_workers = context.get_world_rank(), context.get_world_size()
        self._device = ray.train.torch.get_device() if config.device == "cuda" else torch.device("cpu")
        self._storage = Storage(config.storage)
        self._checkpoints = Checkpoints(self._storage, run.layout.checkpoints_uri)
        self._sampler = Sampler(len(run.content), config.seed)
        self._content = Content(
            self._storage,
            run.content,
            crop_px=config.crop_px,
            short_side_px=round(config.oversize * config.crop_px),
            cache_bytes=parse_size("content_cache", config.content_cache),
            max_failed_fraction=config.max_failed_fraction,
            on_left_out=lambda entry: ray.get(tracker.leave_out.remote(entry)),
        )
        self._batches = Batches(self._content, self._sampler, self._share)
        self._start: int | None = None
        """Start number; None on all workers except the first."""

    def set_up(self, threads: int) -> None:
        """Build the networks, register the start and decode the sample crops.

        Args:
            threads: number of threads that torch uses.
        """
        torch.set_num_threads(threads)
        torch.manual_seed(self._config.seed)
        net = initial_net(self._config, self._run.start, self._device)
        self._setup = self._build_setup()
        self._state = TrainState.fresh(self._begun(net))
        damaged: list[str] = []
        writer: CheckpointWriter | None = None
        if self._rank == 0:
            self._start, damaged = self._checkpoints.register_start(self._driver)
            writer = CheckpointWriter(self._checkpoints, self._start, self._config.keep_checkpoints)
        self._recorder = Recorder(
            self._config,
            self._run.layout,
            self._storage,
            self._tracker,
            writer,
            num_workers=self._num_workers,
            device=self._device,
            samples_NHWC=self._draw_samples() if self._rank == 0 else None,
        )
        for problem in damaged:
            self._recorder.add_event(problem)
        self._preemption = PreemptionNotice()

    def train(self) -> None:
        """Resume at the newest checkpoint, and train to the last step, to a plateau, or until asked to stop."""
        self._resume()
        net = ReducedPrecisionNet(self._state.net, self._setup.dtype)
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
        self._content.close()
        self._recorder.finish()
        if self._is_finished:
            self._export()
        self._recorder.report_end(self._state.step, is_finished=self._is_finished)
        ray.train.report({"step": self._state.step})

    @property
    def _is_finished(self) -> bool:
        is_plateau = self._recorder.plateau.is_reached(self._config.patience)
        return self._state.step >= self._config.steps or is_plateau

    def _advance(self, model: torch.nn.Module) -> bool:
        """Train from the current step on; return True at the end of this start.

        Raises:
            _Unstable: too many consecutive updates were not finite.
        """
        state, recorder = self._state, self._recorder
        recorder.report(state.step)
        if self._is_finished:
            return True
        for crops_NHWC, start_s, wait_s in _timed(self._batches.steps(state.step, self._config.steps)):
            batch_NCHW = normalize(torch.from_numpy(crops_NHWC).to(self._device, non_blocking=True))
            batch_NCHW = batch_NCHW.contiguous(memory_format=torch.channels_last)
            rate = state.rate_scale * one_cycle(state.step, self._config.steps, self._config.learning_rate)
            state.set_rate(rate)
            view = self._sampler.view(state.step, self._config.crop_px, self._config.least_view)
            result = train_step(
                model,
                state.optimizer,
                batch_NCHW,
                self._setup,
                styles_N=self._styles(state.step),
                view=view,
                change=self._sampler.change(state.step),
                request=self._request(),
            )
            state.count_step(result.is_finite, self._config.ema_decay)
            recorder.add(state.step, result, rate, seconds=time.perf_counter() - start_s, wait_s=wait_s)
            recorder.report(state.step)
            if state.num_skipped_in_a_row == MAX_SKIPPED_IN_A_ROW:
                raise _Unstable
            if self._finish_step(result.request):
                return True
        return True

    def _request(self) -> Request:
        """Return what all workers should do after the next step; only the first worker requests anything."""
        request = Request.NOTHING
        if self._rank == 0:
            if self._recorder.should_stop:
                request |= Request.STOP
            if self._preemption.is_check_due:
                request |= Request.CHECK_PREEMPTION
        return request

    def _finish_step(self, request: Request) -> bool:
        """Write samples and checkpoint if they are due after a step; return True if this start ends here."""
        config, recorder, step = self._config, self._recorder, self._state.step
        is_last, is_due = step == config.steps, step % config.checkpoint_every == 0
        should_stop = Request.STOP in request
        is_preempted = Request.CHECK_PREEMPTION in request and self._preemption.check()
        if step % config.sample_every == 0 or is_last:
            recorder.write_samples(self._state)
        if is_due:
            recorder.update_plateau()
            if self._is_finished and not is_last:
                recorder.add_event(f"step {step}: stopped early, the loss has not fallen for a while")
        # After skipped updates the weights are those of an existing checkpoint, or not finite: not worth a new one.
        is_good = self._state.num_skipped_in_a_row == 0
        if is_last or (is_good and (is_due or should_stop or is_preempted)):
            recorder.write_checkpoint(self._state, self._gathered_left_out())
        if is_preempted:
            recorder.wait()
            recorder.add_event(f"step {step}: Ray announced the removal of a node; a checkpoint was written")
        return should_stop or self._is_finished

    def _resume(self) -> None:
        """Load the newest checkpoint on every worker, if there is one."""
        newest = self._agreed_newest()
        if newest is not None:
            self._state.load(newest.step, newest.tensors, newest.numbers)
            self._recorder.restore(newest)
            self._recorder.resumed_at = newest.step
            self._content.restore(self._left_out_at(newest))
        self._check_agreement()

    def _gathered_left_out(self) -> list[list[LeftOutImage]]:
        """Return the content images that each worker leaves out; all workers call this together."""
        own = list(self._content.left_out.values())
        if self._num_workers == 1:
            return [own]
        gathered: list[list[LeftOutImage]] = [[] for _ in range(self._num_workers)]
        dist.all_gather_object(gathered, own)
        return gathered

    def _left_out_at(self, checkpoint: Checkpoint) -> list[LeftOutImage]:
        """Return what this worker left out at a checkpoint; with another number of workers, what any of them did."""
        workers = [[LeftOutImage(**entry) for entry in entries] for entries in checkpoint.numbers.get("left_out", [])]
        if len(workers) == self._num_workers:
            return workers[self._rank]
        return [entry for entries in workers for entry in entries]

    def _agreed_newest(self, before: float = math.inf) -> Checkpoint | None:
        """Return the newest checkpoint that the first worker finds, on all workers.

        Raises:
            _Disagreement: this worker reads other bytes than the first one, or none.
        """
        newest = None
        if self._start is not None:
            newest = self._checkpoints.newest(before, until=self._start)
        if self._num_workers == 1:
            return newest
        # A store may list an object for one worker and not yet for another.
        agreed = [None if newest is None else (newest.name, newest.sha256)]
        dist.broadcast_object_list(agreed, src=0, device=self._device)
        if self._start is not None or agreed[0] is None:
            return newest
        name, sha256 = agreed[0]
        try:
            newest = self._checkpoints.read(name)
        except CheckpointError as error:
            raise _Disagreement(
                f"worker {self._rank} cannot read checkpoint {name} that the first one has read"
            ) from error
        if newest.sha256 != sha256:
            raise _Disagreement(f"worker {self._rank} reads another checkpoint {name} than the first one")
        return newest

    def _check_agreement(self) -> None:
        """Raise _Disagreement if the workers are not in the same state."""
        if self._num_workers == 1:
            return
        found: list[tuple[int, str] | None] = [None] * self._num_workers
        dist.all_gather_object(found, (self._state.step, self._state.digest()))
        if len(set(found)) > 1:
            raise _Disagreement(f"the workers are in different states: {found}")

    def _roll_back(self) -> None:
        """Return to the last good checkpoint, or to the first step, at half the rate.

        The weights since the last update have failed, so only checkpoints before that update are good.

        Raises:
            TrainingError: MAX_ROLL_BACKS was reached.
        """
        if self._state.rate_scale <= 2.0**-MAX_ROLL_BACKS:
            raise TrainingError(
                f"the loss is still not finite after {MAX_ROLL_BACKS} roll-backs; lower --learning-rate, or the weights"
            )
        rate_scale, num_skipped = self._state.rate_scale / 2, self._state.num_skipped
        self._recorder.wait()
        if self._start is not None:
            self._checkpoints.check_is_newest(self._start)
        newest = self._agreed_newest(before=self._state.step - self._state.num_skipped_in_a_row)
        if newest is not None:
            self._state.load(newest.step, newest.tensors, newest.numbers)
            self._recorder.restore(newest)
        else:
            fresh = TrainState.fresh(self._begun(initial_net(self._config, self._run.start, self._device)))
            self._state.load(0, fresh.to_tensors(), fresh.to_numbers())
            self._recorder.reset()
        self._state.rate_scale, self._state.num_skipped = rate_scale, num_skipped
        if self._start is not None:
            self._checkpoints.discard_after(self._state.step, self._start)
        self._recorder.add_event(f"rolled back to step {self._state.step}, the rate is now x{rate_scale:g}")

    def _export(self) -> None:
        """Write the style model, on the first worker; raise Superseded if a newer start has taken over the run."""
        if self._start is None:
            return
        self._checkpoints.check_is_newest(self._start)
        export_style(
            self._storage,
            self._run.layout,
            self._config,
            self._state,
            self._recorder.rows,
            loss_digest=self._loss_digest,
            loss_weights=self._run.loss_origin,
            styles=self._run.styles,
            added_to=None if self._config.add_to is None else self._run.start,
            start_sha256=None if self._run.start is None else hashlib.sha256(self._run.start).hexdigest(),
            teacher_sha256=None if self._run.teacher is None else hashlib.sha256(self._run.teacher).hexdigest(),
            num_content=len(self._run.content),
            left_out=ray.get(self._tracker.left_out.remote()),
        )

    def _begun(self, net: TransformerNet) -> TransformerNet:
        """Return the network as ``initial_net`` made it, begun at the nearest of its styles if it learns further ones.

        All workers compare the same crops, so they choose the same styles.
        """
        if self._config.add_to is not None and self._run.start is not None:
            begin_at_nearest(net, self._run.start, self._config.add_to, self._setup, self._sample_batch)
        return net

    def _sample_batch(self) -> Tensor:
        crops_NHWC = torch.from_numpy(self._draw_samples())
        return normalize(crops_NHWC.to(self._device)).contiguous(memory_format=torch.channels_last)

    def _styles(self, step: int) -> Tensor | None:
        """Return the style of each of this worker's samples of a step, in turn over all samples of the run."""
        num_styles = len(self._run.styles)
        if num_styles == 1:
            return None
        return torch.tensor([index % num_styles for index in self._share(step)], device=self._device)

    def _build_setup(self) -> StepSetup:
        config = self._config
        network = build_loss_network(
            config.loss_network,
            weights=self._run.loss_weights,
            source=config.loss_weights,
            layers=config.layer_weights,
            device=self._device,
        )
        self._loss_digest = network.digest()
        pngs = [style.png for style in self._run.styles if style.png is not None]
        images = [np.asarray(Image.open(io.BytesIO(png))) for png in pngs]
        styles = [normalize(torch.from_numpy(style_HWC.copy())[None].to(self._device)) for style_HWC in images]
        targets = [style_target(network, style_NCHW) for style_NCHW in styles]
        dtype = DTYPES[resolve_precision(config.precision, self._device)]
        teacher = None
        if self._run.teacher is not None:
            teacher = frozen_teacher(self._run.teacher, str(config.teacher), dtype).to(self._device)
        return StepSetup(
            loss_network=network.to(dtype),
            targets=targets,
            photo_style=len(targets) if config.with_photo else None,
            photo_weight=config.photo_weight,
            recoloured=styles if config.style_colors == "content" else (),
            weights=LossWeights(
                content=config.content_weight,
                style=config.style_weight,
                total_variation=config.tv_weight,
                grid=config.grid_weight,
                lattice=config.lattice_weight,
            ),
            dtype=dtype,
            max_gradient_norm=config.max_gradient_norm,
            batch_size=config.batch_size,
            num_workers=self._num_workers,
            micro_batch_size=config.micro_batch_size or config.batch_size,
            steady_weight=config.steady_weight,
            teacher=teacher,
            teacher_weight=config.teacher_weight,
        )

    def _share(self, step: int) -> list[int]:
        return self._sampler.share(step, self._config.batch_size, self._rank, self._num_workers)

    def _draw_samples(self) -> NDArray[np.uint8]:
        """Return the crops of the run's first samples, which are the same for every start."""
        samples = [self._sampler.sample(index) for index in range(NUM_SAMPLES)]
        return np.stack([self._content.crop(sample) for sample in samples])


def _timed(batches: Iterator[NDArray[np.uint8]]) -> Iterator[tuple[NDArray[np.uint8], float, float]]:
    """Yield each batch with the time at which it was requested and the seconds spent waiting for it."""
    while True:
        start_s = time.perf_counter()
        batch_NHWC = next(batches, None)
        if batch_NHWC is None:
            return
        yield batch_NHWC, start_s, time.perf_counter() - start_s
