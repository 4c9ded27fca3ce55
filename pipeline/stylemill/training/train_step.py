"""The networks of a training run: the one in training, and its teacher.

The network in training with its convolutions in a reduced precision.

One update of the weights, or none if anything is not finite.
"""

from __future__ import annotations

import contextlib
import enum
import math
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.func import functional_call

from stylemill.nn.loss_networks.features import LossNetwork
from stylemill.nn.loss_weights import LossWeights
from stylemill.nn.losses import WHOLE, LossView, StyleTarget, perceptual_loss
from stylemill.nn.transformer_net import Architecture, TransformerNet
from stylemill.style_model import from_bytes
from stylemill.training.config import TrainConfig


def architecture_of(config: TrainConfig) -> Architecture:
    """Return the shape of the network that a config asks for."""
    return Architecture(width=config.width, upsampling=config.upsampling, norm=config.norm, residual=config.residual)


def frozen_teacher(model: bytes, source: str, dtype: torch.dtype) -> ReducedNet:
    """Return a style model's network, ready to be learned from: in eval mode, without gradients.

    Args:
        model: the style model's file.
        source: where it came from, for messages.
        dtype: of its activations.
    """
    net = from_bytes(model, source=source).build_network().to(memory_format=torch.channels_last)
    return ReducedNet(net.requires_grad_(False), dtype).eval()


class ReducedNet(nn.Module):
    """Runs a network with activations and convolution weights in ``dtype``; the parameters stay float32.

    Weights are cast once per call, and everything between stays reduced. Autocast would send each reflection padding
    through float32 on CPU, which costs a third of the step. Normalisation keeps its float32 scale and shift.

    Args:
        net: its parameters receive the gradients.
        dtype: ``torch.bfloat16``, or ``torch.float32`` to reduce nothing.
    """

    def __init__(self, net: TransformerNet, dtype: torch.dtype) -> None:
        super().__init__()
        self.net = net
        self._dtype = dtype

    def forward(self, batch_NCHW: Tensor) -> Tensor:
        """Map (N, 3, H, W) of any float dtype to (N, 3, H', W') in ``dtype``."""
        weights = {
            name: parameter.to(self._dtype) if ".conv." in name or ".depthwise." in name else parameter
            for name, parameter in self.net.named_parameters()
        }
        result_NCHW: Tensor = functional_call(self.net, weights, (batch_NCHW.to(self._dtype),))
        return result_NCHW


class Request(enum.IntFlag):
    """What the first worker asks of all workers after a step; it travels with the sums of the losses."""

    NOTHING = 0
    STOP = enum.auto()
    """End this start."""
    LOOK = enum.auto()
    """Look together whether Ray is about to take a node away."""


@dataclass(frozen=True, kw_only=True)
class StepSetup:
    """What stays the same from step to step."""

    loss_network: LossNetwork
    """In ``dtype``."""
    target: StyleTarget
    weights: LossWeights
    dtype: torch.dtype
    """Of activations; losses are float32 whatever it is."""
    max_gradient_norm: float
    batch_size: int
    """Samples of a step over all workers."""
    num_workers: int
    micro_batch_size: int
    teacher: nn.Module | None = None
    """Frozen network whose pictures are learned as well, in ``dtype``."""
    teacher_weight: float = 0.0


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """What one step gave, equal on all workers; plain floats."""

    loss: float
    content_loss: float
    style_loss: float
    tv_loss: float
    grid_loss: float
    teacher_loss: float
    """Mean squared difference from the teacher's pictures, ImageNet-normalised; 0 without a teacher."""
    gradient_norm: float
    """Before clipping."""
    is_finite: bool
    """If not, the weights were left as they were."""
    request: Request = Request.NOTHING
    """What the first worker asks of all."""


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch_NCHW: Tensor,
    setup: StepSetup,
    *,
    view: LossView = WHOLE,
    request: Request = Request.NOTHING,
) -> StepResult:
    """Update the model by one batch; skip the update on all workers if the loss or gradient of any is not finite.

    All terms of the loss are means over samples, so the gradient of the whole batch is the weighted mean of the
    workers' and micro-batches' gradients, however they are cut.

    Args:
        model: the network, wrapped for several workers if there are some.
        optimizer: of its parameters, the rate set.
        batch_NCHW: (n, 3, H, W) this worker's samples, ImageNet-normalised float32.
        setup: the rest.
        view: what the loss sees in this step, the same on all workers.
        request: of the first worker; the others ask nothing, and learn of it.
    """
    optimizer.zero_grad(set_to_none=True)
    sums = torch.zeros(6, dtype=torch.float64, device=batch_NCHW.device)
    portions = batch_NCHW.split(setup.micro_batch_size)
    for number, portion_NCHW in enumerate(portions, 1):
        is_last = number == len(portions)
        # A wrapped model exchanges gradients at the last portion only.
        with contextlib.nullcontext() if is_last or setup.num_workers == 1 else model.no_sync():  # type: ignore[operator]
            sums += _accumulate(model, portion_NCHW, setup, view)
    gradient_norm = nn.utils.clip_grad_norm_(model.parameters(), setup.max_gradient_norm)
    summary = torch.cat((sums, gradient_norm.double()[None] / setup.num_workers, sums.new_tensor([float(request)])))
    if setup.num_workers > 1:
        dist.all_reduce(summary)
    loss, content, style, variation, grid, teacher, norm, asked = summary.tolist()
    is_finite = math.isfinite(loss) and math.isfinite(norm)
    if is_finite:
        optimizer.step()
    return StepResult(
        loss=loss,
        content_loss=content,
        style_loss=style,
        tv_loss=variation,
        grid_loss=grid,
        teacher_loss=teacher,
        gradient_norm=norm,
        is_finite=is_finite,
        request=Request(int(asked)),
    )


def _accumulate(model: nn.Module, portion_NCHW: Tensor, setup: StepSetup, view: LossView) -> Tensor:
    """Add one portion's gradient; return its share of the batch's loss and terms, (6,) float64."""
    share = len(portion_NCHW) / setup.batch_size
    portion_NCHW = portion_NCHW.to(setup.dtype)
    painted_NCHW = model(portion_NCHW)
    terms = perceptual_loss(setup.loss_network, painted_NCHW, portion_NCHW, setup.target, setup.weights, view)
    total, teacher = terms.total, torch.zeros_like(terms.total)
    if setup.teacher is not None:
        with torch.no_grad():
            wanted_NCHW = setup.teacher(portion_NCHW)
        teacher = (painted_NCHW.float() - wanted_NCHW.float()).square().mean()
        total = total + setup.teacher_weight * teacher
    # Wrapped models average gradients over workers; this turns the mean into the sum of the shares.
    (total * (share * setup.num_workers)).backward()
    values = torch.stack((total, terms.content, terms.style, terms.total_variation, terms.grid, teacher))
    return share * values.detach().double()
