"""One update of the weights, or none if anything is not finite."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pipeline.nn.loss_networks.features import LossNetwork
from pipeline.nn.losses import LossWeights, StyleTarget, perceptual_loss


@dataclass(frozen=True, kw_only=True)
class StepSetup:
    """What stays the same from step to step."""

    loss_network: LossNetwork
    target: StyleTarget
    weights: LossWeights
    autocast: Callable[[], torch.autocast]
    max_gradient_norm: float
    batch_size: int
    """Samples of a step over all workers."""
    num_workers: int
    micro_batch_size: int


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """What one step gave, equal on all workers; plain floats."""

    loss: float
    content_loss: float
    style_loss: float
    tv_loss: float
    gradient_norm: float
    """Before clipping."""
    is_finite: bool
    """If not, the weights were left as they were."""


def train_step(model: nn.Module, optimizer: torch.optim.Optimizer, batch_NCHW: Tensor, setup: StepSetup) -> StepResult:
    """Update the model by one batch; skip the update on all workers if the loss or gradient of any is not finite.

    All terms of the loss are means over samples, so the gradient of the whole batch is the weighted mean of the
    workers' and micro-batches' gradients, however they are cut.

    Args:
        model: the network, wrapped for several workers if there are some.
        optimizer: of its parameters, the rate set.
        batch_NCHW: (n, 3, H, W) this worker's samples, ImageNet-normalised float32.
        setup: the rest.
    """
    optimizer.zero_grad(set_to_none=True)
    sums = torch.zeros(4, dtype=torch.float64)
    portions = batch_NCHW.split(setup.micro_batch_size)
    for number, portion_NCHW in enumerate(portions, 1):
        with _synchronised(model, number == len(portions)):
            share = len(portion_NCHW) / setup.batch_size
            with setup.autocast():
                result_NCHW = model(portion_NCHW)
                terms = perceptual_loss(setup.loss_network, result_NCHW, portion_NCHW, setup.target, setup.weights)
            # Wrapped models average gradients over workers; this turns the mean into the sum of the shares.
            (terms.total * (share * setup.num_workers)).backward()
        values = torch.stack((terms.total, terms.content, terms.style, terms.total_variation))
        sums += share * values.detach().double().cpu()
    if setup.num_workers > 1:
        dist.all_reduce(sums)
    gradient_norm = float(nn.utils.clip_grad_norm_(model.parameters(), setup.max_gradient_norm))
    is_finite = bool(torch.isfinite(sums).all()) and _all_finite(gradient_norm, setup.num_workers)
    if is_finite:
        optimizer.step()
    loss, content, style, variation = sums.tolist()
    return StepResult(
        loss=loss,
        content_loss=content,
        style_loss=style,
        tv_loss=variation,
        gradient_norm=gradient_norm,
        is_finite=is_finite,
    )


def _synchronised(model: nn.Module, is_last: bool) -> torch.autograd.profiler.record_function:
    """Let a wrapped model exchange gradients at the last micro-batch only."""
    if is_last or not hasattr(model, "no_sync"):
        return torch.autograd.profiler.record_function("micro_batch")
    context: torch.autograd.profiler.record_function = model.no_sync()
    return context


def _all_finite(gradient_norm: float, num_workers: int) -> bool:
    flag = torch.tensor(float(torch.isfinite(torch.tensor(gradient_norm))))
    if num_workers > 1:
        dist.all_reduce(flag, op=dist.ReduceOp.MIN)
    return bool(flag)
