"""The networks of a training run, and ``train_step``, one update of the weights.

``train_step`` is the same on all workers: they exchange gradients and losses, and skip the update together if a loss or
gradient of any of them is not finite.
"""

from __future__ import annotations

import contextlib
import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.func import functional_call

from stylemill.nn.colors import with_colors_of
from stylemill.nn.loss_networks.features import LossNetwork
from stylemill.nn.loss_weights import LossWeights
from stylemill.nn.losses import FULL_VIEW, LossView, StyleTarget, perceptual_loss, style_target
from stylemill.nn.transformer_net import TransformerNet
from stylemill.style_model import from_bytes
from stylemill.training.small_change import NO_CHANGE, SmallChange


def frozen_teacher(model: bytes, source: str, dtype: torch.dtype) -> ReducedPrecisionNet:
    """Return a style model's network in eval mode and without gradients.

    Args:
        model: the style model's file.
        source: location of the file, for messages.
        dtype: of the activations.
    """
    net = from_bytes(model, source=source).build_network().to(memory_format=torch.channels_last)
    return ReducedPrecisionNet(net.requires_grad_(False), dtype).eval()


class ReducedPrecisionNet(nn.Module):
    """Runs a network with activations and convolution weights in ``dtype``; the parameters stay float32.

    Weights are cast once per call, and all activations stay in ``dtype``. Autocast would convert to float32 for each
    reflection padding on CPU, which costs a third of the step. Normalisation keeps its float32 scale and shift.

    Args:
        net: its parameters receive the gradients.
        dtype: ``torch.bfloat16``, or ``torch.float32`` for full precision.
    """

    def __init__(self, net: TransformerNet, dtype: torch.dtype) -> None:
        super().__init__()
        self.net = net
        self._dtype = dtype

    def forward(self, batch_NCHW: Tensor, styles_N: Tensor | None = None) -> Tensor:
        """Map (N, 3, H, W) of any float dtype to (N, 3, H', W') in ``dtype``, each image in its style."""
        weights = {
            name: parameter.to(self._dtype) if ".conv." in name or ".depthwise." in name else parameter
            for name, parameter in self.net.named_parameters()
        }
        result_NCHW: Tensor = functional_call(self.net, weights, (batch_NCHW.to(self._dtype), styles_N))
        return result_NCHW


class Request(enum.IntFlag):
    """A request of the first worker to all workers, carried out after a step; sent along with the losses."""

    NOTHING = 0
    STOP = enum.auto()
    """Write a checkpoint and end this start."""
    CHECK_PREEMPTION = enum.auto()
    """Check together whether Ray has announced the removal of a node."""


@dataclass(frozen=True, kw_only=True)
class StepSetup:
    """Everything that ``train_step`` needs and that stays the same from step to step."""

    loss_network: LossNetwork
    """In ``dtype``."""
    targets: Sequence[StyleTarget]
    """One for each style image."""
    photo_style: int | None = None
    """Number of the style that paints photographs as they are, if the network has one."""
    photo_weight: float = 0.0
    """Weight of the difference from the photographs in that style."""
    recoloured: Sequence[Tensor] = ()
    """The style images, (1, 3, H, W) float32 each, if they get the colours of each content image; they replace
    ``targets`` then."""
    weights: LossWeights
    dtype: torch.dtype
    """Of activations; losses are always float32."""
    max_gradient_norm: float
    batch_size: int
    """Samples of a step over all workers."""
    num_workers: int
    micro_batch_size: int
    steady_weight: float = 0.0
    """Weight of the term that keeps results the same under small changes of the image; 0 leaves it out."""
    teacher: nn.Module | None = None
    """Frozen network whose outputs are learned too, in ``dtype``."""
    teacher_weight: float = 0.0

    def target_for(self, content_NCHW: Tensor, styles_N: Tensor | None, view: LossView = FULL_VIEW) -> StyleTarget:
        """Return the target for content images, (N, 3, H, W), in the styles of these numbers, seen in a view."""
        if styles_N is None and not self.recoloured:
            return self.targets[0]
        if styles_N is None:
            return self._recoloured_target(0, content_NCHW)
        images = content_NCHW.split(1)
        return StyleTarget.joined([self._target(*pair, view) for pair in zip(styles_N.tolist(), images, strict=True)])

    def mean_over_styles(self, losses_N: Tensor, styles_N: Tensor | None) -> Tensor:
        """Return the mean of losses in which photographs that are painted as they are count as 0."""
        if styles_N is None or self.photo_style is None:
            return losses_N.mean()
        return (losses_N * (styles_N != self.photo_style)).mean()

    def _target(self, style: int, content_NCHW: Tensor, view: LossView) -> StyleTarget:
        if style == self.photo_style:  # the style of a photograph is its own
            return style_target(self.loss_network, view.apply(content_NCHW))
        return self._recoloured_target(style, content_NCHW) if self.recoloured else self.targets[style]

    def _recoloured_target(self, style: int, content_NCHW: Tensor) -> StyleTarget:
        style_NCHW = with_colors_of(self.recoloured[style], content_NCHW)
        return style_target(self.loss_network, style_NCHW.to(self.dtype).contiguous(memory_format=torch.channels_last))


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """The losses and the outcome of one step, equal on all workers."""

    loss: float
    content_loss: float
    style_loss: float
    tv_loss: float
    grid_loss: float
    lattice_loss: float
    teacher_loss: float
    """Mean squared difference from the teacher's ImageNet-normalised outputs; 0 without a teacher."""
    steady_loss: float
    """Mean squared change of ImageNet-normalised outputs under small changes of the images; 0 without its weight."""
    photo_loss: float
    """Mean squared difference from the photographs that are painted as they are; the others count as 0."""
    gradient_norm: float
    """Before clipping."""
    is_finite: bool
    """False if the update was skipped; the weights are unchanged."""
    request: Request = Request.NOTHING
    """The first worker's request to all."""


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch_NCHW: Tensor,
    setup: StepSetup,
    *,
    styles_N: Tensor | None = None,
    view: LossView = FULL_VIEW,
    change: SmallChange = NO_CHANGE,
    request: Request = Request.NOTHING,
) -> StepResult:
    """Update the model by one batch; skip the update on all workers if the loss or gradient of any is not finite.

    All terms of the loss are means over samples, so the gradient of the whole batch is the weighted mean of the
    gradients of workers and micro-batches, for any split.

    Args:
        model: the network, wrapped in DistributedDataParallel if there are several workers.
        optimizer: of its parameters, with the learning rate of this step.
        batch_NCHW: (n, 3, H, W) this worker's samples, ImageNet-normalised float32.
        setup: loss, weights and sizes.
        styles_N: (n,) int64, the style of each sample; None in a network of one style.
        view: the part of the results that the loss sees in this step, the same on all workers.
        change: of the images, under which results should stay the same, if ``setup`` gives that a weight.
        request: of the first worker; the others pass NOTHING and find the request in the result.
    """
    optimizer.zero_grad(set_to_none=True)
    sums = torch.zeros(9, dtype=torch.float64, device=batch_NCHW.device)
    portions = batch_NCHW.split(setup.micro_batch_size)
    styles = [None] * len(portions) if styles_N is None else styles_N.split(setup.micro_batch_size)
    for number, (portion_NCHW, portion_styles_N) in enumerate(zip(portions, styles, strict=True), 1):
        is_last = number == len(portions)
        # Workers exchange gradients only at the last portion.
        with contextlib.nullcontext() if is_last or setup.num_workers == 1 else model.no_sync():  # type: ignore[operator]
            sums += _accumulate(model, portion_NCHW, portion_styles_N, setup, view, change)
    gradient_norm = nn.utils.clip_grad_norm_(model.parameters(), setup.max_gradient_norm)
    summary = torch.cat((sums, gradient_norm.double()[None] / setup.num_workers, sums.new_tensor([float(request)])))
    if setup.num_workers > 1:
        dist.all_reduce(summary)
    loss, content, style, variation, grid, lattice, teacher, steady, photo, norm, asked = summary.tolist()
    is_finite = math.isfinite(loss) and math.isfinite(norm)
    if is_finite:
        optimizer.step()
    return StepResult(
        loss=loss,
        content_loss=content,
        style_loss=style,
        tv_loss=variation,
        grid_loss=grid,
        lattice_loss=lattice,
        teacher_loss=teacher,
        steady_loss=steady,
        photo_loss=photo,
        gradient_norm=norm,
        is_finite=is_finite,
        request=Request(int(asked)),
    )


def _distances(one_NCHW: Tensor, other_NCHW: Tensor) -> Tensor:
    """Return the mean squared difference of each pair of images, (N,) float32."""
    return (one_NCHW.float() - other_NCHW.float()).square().mean(dim=(1, 2, 3))


def _accumulate(
    model: nn.Module,
    portion_NCHW: Tensor,
    styles_N: Tensor | None,
    setup: StepSetup,
    view: LossView,
    change: SmallChange,
) -> Tensor:
    """Accumulate the gradient of one portion; return its share of the batch's total loss and terms, (9,) float64."""
    share = len(portion_NCHW) / setup.batch_size
    portion_NCHW = portion_NCHW.to(setup.dtype)
    painted_NCHW = model(portion_NCHW, styles_N)
    target = setup.target_for(portion_NCHW, styles_N, view)
    terms = perceptual_loss(setup.loss_network, painted_NCHW, portion_NCHW, target, setup.weights, view)
    total = terms.total
    teacher, steady, photo = (torch.zeros_like(total) for _ in range(3))
    if setup.teacher is not None:
        with torch.no_grad():
            wanted_NCHW = setup.teacher(portion_NCHW)
        teacher = setup.mean_over_styles(_distances(painted_NCHW, wanted_NCHW), styles_N)
        total = total + setup.teacher_weight * teacher
    if setup.steady_weight:
        changed_NCHW = model(change.applied(portion_NCHW), styles_N)
        steady = change.difference(painted_NCHW, changed_NCHW)
        total = total + setup.steady_weight * steady
    if setup.photo_style is not None and styles_N is not None:
        photo = (_distances(painted_NCHW, portion_NCHW) * (styles_N == setup.photo_style)).mean()
        total = total + setup.photo_weight * photo
    # DistributedDataParallel averages gradients over workers; this factor turns the mean into the sum of the shares.
    (total * (share * setup.num_workers)).backward()
    parts = (terms.content, terms.style, terms.total_variation, terms.grid, terms.lattice, teacher, steady, photo)
    values = torch.stack((total, *parts))
    return share * values.detach().double()
