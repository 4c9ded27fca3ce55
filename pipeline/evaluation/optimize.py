"""A picture painted by direct optimisation of its pixels: what a network's quality is held against."""

from __future__ import annotations

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

LEARNING_RATES: dict[Optimizer, float] = {"adam": 0.05, "sgd": 30.0}
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
    """Optimise pixels under the judge's loss, within the range that 8 bits can hold; one iteration is one update.

    Args:
        bench: loss network, style and weights.
        source_HWC: (H, W, 3) uint8 content.
        iterations: how many updates.
        optimizer: what takes the steps.
        start: from the content image, or from noise.
        gram: what the style term compares: whole Gram matrices, or their diagonals alone.
        learning_rate: of Adam or SGD; None takes LEARNING_RATES. L-BFGS-B finds its own steps.
        seed: of the noise.
        snapshots: iterations whose picture is kept.
        on_progress: told each iteration and its loss.

    Raises:
        ConfigError: the loss does not stay finite, or is higher at the end than at the start.

    Source: Gatys et al. 2016, doi:10.1109/CVPR.2016.265; the diagonal after Li et al. 2017, arXiv:1701.01036.
    """
    source_NCHW = to_batch(source_HWC)
    black, white = (to_batch(np.full((1, 1, 3), level, np.uint8)) for level in (0, 255))
    first_NCHW = _first_pixels(source_NCHW, black, white, start, seed)
    objective = _Objective(bench, source_NCHW, gram)
    record = _Record(bench, source_HWC, first_NCHW, snapshots, on_progress)
    rate = LEARNING_RATES.get(optimizer) if learning_rate is None else learning_rate
    if optimizer == "lbfgs":
        _run_lbfgs(objective, first_NCHW, (black, white), iterations, record)
    else:
        assert rate is not None
        _run_steps(objective, first_NCHW, (black, white), iterations, record, optimizer, rate)
    if not record.losses[-1] <= record.losses[0]:
        problem = f"makes the loss grow from {record.losses[0]:.3g} to {record.losses[-1]:.3g} with {optimizer}"
        raise ConfigError("learning_rate", rate, problem, "write a smaller one")
    return record.finish(iterations)


class _Record:
    """Loss, time and pictures of an optimisation, iteration by iteration; the clock stands while it measures."""

    def __init__(
        self,
        bench: Bench,
        source_HWC: NDArray[np.uint8],
        first_NCHW: Tensor,
        snapshots: Collection[int],
        on_progress: Callable[[int, float], None] | None,
    ) -> None:
        self._bench, self._source_HWC, self._wanted, self._on_progress = bench, source_HWC, snapshots, on_progress
        self._snapshots: dict[int, NDArray[np.uint8]] = {}
        self._picture_HWC = to_picture(first_NCHW)
        self.losses = [bench.losses(self._picture_HWC, source_HWC).total]
        self._seconds = [0.0]
        self._began_s = time.perf_counter()

    def add(self, pixels_NCHW: Tensor) -> None:
        """Measure the pixels after one more iteration."""
        self._seconds.append(self._seconds[-1] + time.perf_counter() - self._began_s)
        self._picture_HWC = to_picture(pixels_NCHW)
        self.losses.append(self._bench.losses(self._picture_HWC, self._source_HWC).total)
        iteration = len(self.losses) - 1
        if iteration in self._wanted:
            self._snapshots[iteration] = self._picture_HWC
        if self._on_progress:
            self._on_progress(iteration, self.losses[-1])
        self._began_s = time.perf_counter()

    def finish(self, iterations: int) -> Optimization:
        """Return the whole; where no step helped any more, the rest of the iterations repeats the last."""
        rest = iterations + 1 - len(self.losses)
        missing = {mark: self._picture_HWC for mark in self._wanted if len(self.losses) <= mark <= iterations}
        return Optimization(
            result_HWC=self._picture_HWC,
            losses=np.array(self.losses + self.losses[-1:] * rest),
            seconds=np.array(self._seconds + self._seconds[-1:] * rest),
            snapshots=self._snapshots | missing,
        )


def _run_lbfgs(
    objective: _Objective, first_NCHW: Tensor, bounds: tuple[Tensor, Tensor], iterations: int, record: _Record
) -> None:
    """Take iterations of scipy's L-BFGS-B, which keeps the pixels within bounds and has a line search."""
    from scipy.optimize import minimize

    shape = first_NCHW.shape

    def as_pixels(values: NDArray[np.float64]) -> Tensor:
        return torch.from_numpy(values.astype(np.float32)).view(shape)

    def loss_and_gradient(values: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        pixels_NCHW = as_pixels(values).requires_grad_()
        loss = objective(pixels_NCHW)
        loss.backward()
        assert pixels_NCHW.grad is not None
        return float(loss.detach()), pixels_NCHW.grad.double().numpy().ravel()

    low, high = (bound.expand(shape).double().numpy().ravel() for bound in bounds)
    minimize(
        loss_and_gradient,
        first_NCHW.double().numpy().ravel(),
        jac=True,
        method="L-BFGS-B",
        bounds=np.stack([low, high], axis=1),
        callback=lambda values: record.add(as_pixels(values)),
        options={"maxiter": iterations, "maxfun": 20 * iterations, "maxcor": 20, "ftol": 0.0, "gtol": 0.0},
    )


def _run_steps(
    objective: _Objective,
    first_NCHW: Tensor,
    bounds: tuple[Tensor, Tensor],
    iterations: int,
    record: _Record,
    optimizer: Optimizer,
    rate: float,
) -> None:
    """Take steps of one of torch's optimizers; pixels that leave the bounds are brought back after each."""
    pixels_NCHW = first_NCHW.clone().requires_grad_()
    stepper: torch.optim.Optimizer = (
        torch.optim.Adam([pixels_NCHW], lr=rate)
        if optimizer == "adam"
        else torch.optim.SGD([pixels_NCHW], lr=rate, momentum=_MOMENTUM)
    )
    for iteration in range(1, iterations + 1):
        stepper.zero_grad()
        objective(pixels_NCHW).backward()
        stepper.step()
        with torch.no_grad():
            pixels_NCHW.clamp_(*bounds)
        if not torch.isfinite(pixels_NCHW).all():
            problem = f"gives values that are not finite at iteration {iteration} with {optimizer}"
            raise ConfigError("learning_rate", rate, problem, "write a smaller one")
        record.add(pixels_NCHW)


def to_picture(pixels_NCHW: Tensor) -> NDArray[np.uint8]:
    """Return a batch of one as an (H, W, 3) uint8 picture."""
    picture_HWC: NDArray[np.uint8] = deprocess(pixels_NCHW.detach())[0].numpy()
    return picture_HWC


def _first_pixels(source_NCHW: Tensor, black: Tensor, white: Tensor, start: Start, seed: int) -> Tensor:
    if start == "content":
        return source_NCHW.clone()
    noise = torch.randn(source_NCHW.shape, generator=torch.Generator().manual_seed(seed))
    return (noise * 0.5).clamp(black, white)


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
