"""A picture painted by direct optimisation of its pixels: what a network's quality is held against."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import ConfigError
from pipeline.evaluation.judging import Bench, to_batch
from pipeline.nn.losses import content_loss, grid_loss, perceptual_loss, total_variation_loss
from pipeline.nn.pixels import deprocess

Optimizer = Literal["lbfgs", "adam", "sgd"]
Start = Literal["content", "noise"]
Gram = Literal["full", "diagonal"]

LEARNING_RATES: dict[Optimizer, float] = {"lbfgs": 1.0, "adam": 0.05, "sgd": 30.0}
"""Defaults; the gradients of a mean over pixels are small, so plain descent needs large steps."""
_MOMENTUM = 0.9


@dataclass(frozen=True, kw_only=True, eq=False)
class Optimization:
    """How an optimisation went."""

    result_HWC: NDArray[np.uint8]
    """(H, W, 3), after the last iteration."""
    losses: NDArray[np.float64]
    """(iterations + 1,) total loss of the picture as 8-bit pixels, the start included, always with full Grams."""
    seconds: NDArray[np.float64]
    """(iterations + 1,) since the start, without the time that measuring ``losses`` took."""
    snapshots: dict[int, NDArray[np.uint8]]
    """(H, W, 3) by iteration."""


def optimize_pixels(
    bench: Bench,
    source_HWC: NDArray[np.uint8],
    *,
    iterations: int,
    optimizer: Optimizer = "lbfgs",
    start: Start = "content",
    gram: Gram = "full",
    learning_rate: float | None = None,
    seed: int = 0,
    snapshots: Collection[int] = (),
    on_progress: Callable[[int, float], None] | None = None,
) -> Optimization:
    """Optimise pixels under the judge's loss; one iteration is one gradient and one update.

    After each update the pixels are brought back into the range that 8 bits can hold.

    Args:
        bench: loss network, style and weights.
        source_HWC: (H, W, 3) uint8 content.
        iterations: how many updates.
        optimizer: what takes the steps.
        start: from the content image, or from noise.
        gram: what the style term compares: whole Gram matrices, or their diagonals alone.
        learning_rate: of the optimizer; None takes LEARNING_RATES.
        seed: of the noise.
        snapshots: iterations whose picture is kept.
        on_progress: told each iteration and its loss.

    Raises:
        ConfigError: the loss does not stay finite, or is higher at the end than at the start.

    Source: Gatys et al. 2016, doi:10.1109/CVPR.2016.265; the diagonal after Li et al. 2017, arXiv:1701.01036.
    """
    source_NCHW = to_batch(source_HWC)
    black, white = (to_batch(np.full((1, 1, 3), level, np.uint8)) for level in (0, 255))
    pixels_NCHW = _first_pixels(source_NCHW, black, white, start, seed).requires_grad_()
    rate = LEARNING_RATES[optimizer] if learning_rate is None else learning_rate
    stepper = _stepper(optimizer, pixels_NCHW, rate)
    objective = _Objective(bench, source_NCHW, gram)

    def closure() -> Tensor:
        stepper.zero_grad()
        loss = objective(pixels_NCHW)
        loss.backward()
        return loss

    picture_HWC = to_picture(pixels_NCHW)
    losses, seconds, kept = [bench.losses(picture_HWC, source_HWC).total], [0.0], {}
    for iteration in range(1, iterations + 1):
        start_s = time.perf_counter()
        stepper.step(closure)  # type: ignore[arg-type]
        with torch.no_grad():
            pixels_NCHW.clamp_(black, white)
        seconds.append(seconds[-1] + time.perf_counter() - start_s)
        picture_HWC = to_picture(pixels_NCHW)
        losses.append(bench.losses(picture_HWC, source_HWC).total)
        if not math.isfinite(losses[-1]) or not torch.isfinite(pixels_NCHW).all():
            problem = f"gives values that are not finite at iteration {iteration} with {optimizer}"
            raise ConfigError("learning_rate", rate, problem, "write a smaller one")
        if iteration in snapshots:
            kept[iteration] = picture_HWC
        if on_progress:
            on_progress(iteration, losses[-1])
    if losses[-1] > losses[0]:
        problem = f"makes the loss grow from {losses[0]:.3g} to {losses[-1]:.3g} with {optimizer}"
        raise ConfigError("learning_rate", rate, problem, "write a smaller one")
    return Optimization(result_HWC=picture_HWC, losses=np.array(losses), seconds=np.array(seconds), snapshots=kept)


def to_picture(pixels_NCHW: Tensor) -> NDArray[np.uint8]:
    """Return a batch of one as an (H, W, 3) uint8 picture."""
    picture_HWC: NDArray[np.uint8] = deprocess(pixels_NCHW.detach())[0].numpy()
    return picture_HWC


def _first_pixels(source_NCHW: Tensor, black: Tensor, white: Tensor, start: Start, seed: int) -> Tensor:
    if start == "content":
        return source_NCHW.clone()
    noise = torch.randn(source_NCHW.shape, generator=torch.Generator().manual_seed(seed))
    return (noise * 0.5).clamp(black, white)


def _stepper(optimizer: Optimizer, pixels_NCHW: Tensor, rate: float) -> torch.optim.Optimizer:
    if optimizer == "lbfgs":
        # One update for each gradient, and no end before the last iteration.
        return torch.optim.LBFGS(
            [pixels_NCHW], lr=rate, max_iter=1, history_size=30, tolerance_grad=0.0, tolerance_change=0.0
        )
    if optimizer == "adam":
        return torch.optim.Adam([pixels_NCHW], lr=rate)
    return torch.optim.SGD([pixels_NCHW], lr=rate, momentum=_MOMENTUM)


class _Objective:
    """The judge's loss of pixels, differentiable."""

    def __init__(self, bench: Bench, source_NCHW: Tensor, gram: Gram) -> None:
        self._bench, self._source_NCHW, self._gram = bench, source_NCHW, gram
        with torch.no_grad():
            self._wanted_NCHW = bench.network.content(source_NCHW)
        self._diagonals = [layer.diagonal(dim1=1, dim2=2) for layer in bench.target.grams]

    def __call__(self, pixels_NCHW: Tensor) -> Tensor:
        bench = self._bench
        if self._gram == "full":
            return perceptual_loss(bench.network, pixels_NCHW, self._source_NCHW, bench.target, bench.weights).total
        found, weights = bench.network.features(pixels_NCHW), bench.weights
        total = weights.content * content_loss(found.content_NCHW, self._wanted_NCHW, bench.network.content_energy)
        total = total + weights.style * self._diagonal_style(found.style_NCHW)
        total = total + weights.total_variation * total_variation_loss(pixels_NCHW)
        return total + weights.grid * grid_loss(pixels_NCHW)

    def _diagonal_style(self, layers_NCHW: tuple[Tensor, ...]) -> Tensor:
        """Return the squared distance of the channels' energies relative to the style's, averaged over layers."""
        losses = []
        for layer_NCHW, wanted_NC in zip(layers_NCHW, self._diagonals, strict=False):
            found_NC = layer_NCHW.float().square().mean(dim=(2, 3)) / layer_NCHW.shape[1]
            losses.append((found_NC - wanted_NC).square().mean() / wanted_NC.square().mean())
        return torch.stack(losses).mean()
