"""Direct optimisation of the pixels of one picture, and the yardstick that compares a network with it.

``optimize_pixels`` minimises the judge's loss over pixels, as the original paper did without a network.
``measure_yardstick`` runs it on some images of an evaluation and reports to how many iterations each network is equal.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from stylemill.errors import ConfigError
from stylemill.evaluation.judge import Judge, to_batch
from stylemill.evaluation.measure import PreparedEvaluation, load_source
from stylemill.images.isolation.client import IsolatedDecoder
from stylemill.images.options import DecodeOptions
from stylemill.nn.losses import (
    StyleTarget,
    content_term,
    grid_loss,
    perceptual_loss,
    style_distances,
    style_term,
    total_variation_loss,
)
from stylemill.nn.pixels import deprocess
from stylemill.storage import Storage

Optimizer = Literal["lbfgs", "adam", "sgd"]
Start = Literal["content", "noise"]
Gram = Literal["full", "diagonal"]

LEARNING_RATES: dict[Optimizer, float] = {"adam": 0.05, "sgd": 30.0}
"""Defaults. The gradients of a mean over pixels are small, so gradient descent needs large steps."""
REPORTED_ITERATIONS = (50, 100, 300, 500)
"""Iterations for which the yardstick reports loss and time."""
_MOMENTUM = 0.9


@dataclass(frozen=True, kw_only=True, eq=False)
class Optimization:
    """Result and history of an optimisation."""

    result_HWC: NDArray[np.uint8]
    """(H, W, 3), after the last iteration."""
    losses: NDArray[np.float64]
    """(iterations + 1,) total loss of the 8-bit picture with full Gram matrices, from the start on."""
    seconds: NDArray[np.float64]
    """(iterations + 1,) seconds since the start, without the time spent on measuring ``losses``."""
    snapshots: dict[int, NDArray[np.uint8]]
    """Pictures, (H, W, 3), by iteration."""


def optimize_pixels(
    judge: Judge,
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
    """Minimise the judge's loss over pixels, within the range of 8-bit pixels; one iteration is one update.

    Args:
        judge: loss network, style and weights.
        source_HWC: (H, W, 3) uint8 content.
        iterations: number of updates.
        optimizer: algorithm of the updates.
        start: initial picture: the content image, or noise.
        gram: what the style loss compares: full Gram matrices, or only their diagonals.
        learning_rate: learning rate of Adam or SGD; None takes LEARNING_RATES. L-BFGS-B finds its step sizes itself.
        seed: seed of the noise.
        snapshots: iterations whose picture is returned.
        on_progress: called with each iteration and its loss.

    Raises:
        ConfigError: the values do not stay finite, or the loss is higher at the end than at the start.

    Source: Gatys et al. 2016, doi:10.1109/CVPR.2016.265; the diagonal after Li et al. 2017, arXiv:1701.01036.
    """
    source_NCHW = to_batch(source_HWC)
    black, white = (to_batch(np.full((1, 1, 3), level, np.uint8)) for level in (0, 255))
    first_NCHW = _first_pixels(source_NCHW, black, white, start, seed)
    objective = _Objective(judge, source_NCHW, gram)
    record = _Record(judge, source_HWC, first_NCHW, snapshots, on_progress)
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
    """Records loss, time and pictures of an optimisation; the time of measuring the loss does not count."""

    def __init__(
        self,
        judge: Judge,
        source_HWC: NDArray[np.uint8],
        first_NCHW: Tensor,
        snapshots: Collection[int],
        on_progress: Callable[[int, float], None] | None,
    ) -> None:
        self._judge, self._source_HWC, self._wanted, self._on_progress = judge, source_HWC, snapshots, on_progress
        self._snapshots: dict[int, NDArray[np.uint8]] = {}
        self._picture_HWC = to_picture(first_NCHW)
        self.losses = [judge.losses(self._picture_HWC, source_HWC).total]
        self._seconds = [0.0]
        self._began_s = time.perf_counter()

    def add(self, pixels_NCHW: Tensor) -> None:
        """Measure the pixels after one more iteration."""
        self._seconds.append(self._seconds[-1] + time.perf_counter() - self._began_s)
        self._picture_HWC = to_picture(pixels_NCHW)
        self.losses.append(self._judge.losses(self._picture_HWC, self._source_HWC).total)
        iteration = len(self.losses) - 1
        if iteration in self._wanted:
            self._snapshots[iteration] = self._picture_HWC
        if self._on_progress:
            self._on_progress(iteration, self.losses[-1])
        self._began_s = time.perf_counter()

    def finish(self, iterations: int) -> Optimization:
        """Return the result; after early convergence the last iteration is repeated for the remaining ones."""
        rest = iterations + 1 - len(self.losses)
        missing = {at: self._picture_HWC for at in self._wanted if len(self.losses) <= at <= iterations}
        return Optimization(
            result_HWC=self._picture_HWC,
            losses=np.array(self.losses + self.losses[-1:] * rest),
            seconds=np.array(self._seconds + self._seconds[-1:] * rest),
            snapshots=self._snapshots | missing,
        )


def _run_lbfgs(
    objective: _Objective, first_NCHW: Tensor, bounds: tuple[Tensor, Tensor], iterations: int, record: _Record
) -> None:
    """Run scipy's L-BFGS-B, which keeps the pixels within bounds and has a line search."""
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
    """Run one of torch's optimizers; the pixels are clamped to the bounds after each step."""
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
            problem = f"leads to values that are not finite at iteration {iteration} with {optimizer}"
            raise ConfigError("learning_rate", rate, problem, "write a smaller one")
        record.add(pixels_NCHW)


def to_picture(pixels_NCHW: Tensor) -> NDArray[np.uint8]:
    """Return a (1, 3, H, W) normalised batch as an (H, W, 3) uint8 picture."""
    picture_HWC: NDArray[np.uint8] = deprocess(pixels_NCHW.detach())[0].numpy()
    return picture_HWC


def _first_pixels(source_NCHW: Tensor, black: Tensor, white: Tensor, start: Start, seed: int) -> Tensor:
    if start == "content":
        return source_NCHW.clone()
    noise = torch.randn(source_NCHW.shape, generator=torch.Generator().manual_seed(seed))
    return (noise * 0.5).clamp(black, white)


class _Objective:
    """The judge's loss as a differentiable function of the pixels."""

    def __init__(self, judge: Judge, source_NCHW: Tensor, gram: Gram) -> None:
        self._judge, self._source_NCHW, self._gram = judge, source_NCHW, gram
        with torch.no_grad():
            self._wanted = judge.network.content(source_NCHW)
        grams = {name: torch.diag_embed(_diagonal(gram)) for name, gram in judge.target.grams.items()}
        self._diagonals = StyleTarget(grams, judge.target.palette)

    def __call__(self, pixels_NCHW: Tensor) -> Tensor:
        judge = self._judge
        if self._gram == "full":
            return perceptual_loss(judge.network, pixels_NCHW, self._source_NCHW, judge.target, judge.weights).total
        found, weights = judge.network.features(pixels_NCHW), judge.weights
        total = weights.content * content_term(judge.network, found.content, self._wanted)
        energies = {
            name: torch.diag_embed(layer.float().square().mean(dim=(2, 3)) / layer.shape[1])
            for name, layer in found.style.items()
        }
        distances = style_distances(energies, self._diagonals, pixels_NCHW)
        total = total + weights.style * style_term(judge.network, distances)
        total = total + weights.total_variation * total_variation_loss(pixels_NCHW)
        return total + weights.grid * grid_loss(pixels_NCHW)


def _diagonal(gram_NCC: Tensor) -> Tensor:
    return gram_NCC.diagonal(dim1=1, dim2=2)


@dataclass(frozen=True, kw_only=True)
class YardstickResult:
    """One network compared with the optimisation of the same images under the same loss."""

    model: str
    num_images: int
    network_loss: float
    """Mean total loss of the network."""
    network_s: float
    """Mean seconds of the network for one image."""
    iterations: int
    """Iterations of the optimisation."""
    losses_at: tuple[float, ...]
    """Mean total loss of the optimisation at each of REPORTED_ITERATIONS that it reached."""
    seconds_at: tuple[float, ...]
    """Mean seconds of the optimisation until each of REPORTED_ITERATIONS that it reached."""
    equal_iterations: int | None
    """First iteration at which the mean loss of the optimisation is no higher than the network's; None if it stays
    higher, 0 if the unpainted images have no higher loss."""
    times_faster: float
    """Seconds of ``equal_iterations`` iterations (of all if that is None) divided by the seconds of the network."""

    @property
    def sentence(self) -> str:
        """The result as a sentence without a full stop."""
        measured = f"(mean of {self.num_images} images, loss {self.network_loss:.3f})"
        if self.equal_iterations == 0:
            return f"{self.model}: no better than the images themselves under this loss {measured}"
        which = (
            f"better than {self.iterations}" if self.equal_iterations is None else f"equal to {self.equal_iterations}"
        )
        faster = f"{self.times_faster:,.0f} times faster"
        return f"{self.model}: {which} iterations of L-BFGS from content, {faster} {measured}"


def measure_yardstick(
    storage: Storage, prepared: PreparedEvaluation, table: pa.Table, show: Callable[[str], None]
) -> list[YardstickResult]:
    """Optimise the first images of an evaluation directly and compare every model with that.

    Args:
        storage: storage of the images.
        prepared: the evaluation.
        table: rows of the evaluation.
        show: called with a line about the progress.
    """
    rows = [row for row in table.to_pylist() if row["status"] == "ok"]
    keys = list(dict.fromkeys(row["key"] for row in rows))[: prepared.config.yardstick_images]
    uris = {row["key"]: row["uri"] for row in rows}
    runs = []
    with IsolatedDecoder(DecodeOptions()) as decoder:
        for number, key in enumerate(keys, 1):
            source_HWC = load_source(storage, decoder, uris[key], prepared.config.size_px)
            what = f"yardstick {number}/{len(keys)}"
            runs.append(
                optimize_pixels(
                    prepared.judge,
                    source_HWC,
                    iterations=prepared.config.yardstick_iterations,
                    on_progress=lambda step, loss, what=what: show(f"{what}: iteration {step}, loss {loss:.3f}"),  # type: ignore[misc]
                )
            )
    return [
        compare_with_runs(label, [row for row in rows if row["model"] == label and row["key"] in keys], runs)
        for label in prepared.models
        if keys
    ]


def compare_with_runs(model: str, rows: Sequence[dict], runs: Sequence[Optimization]) -> YardstickResult:
    """Compare the rows of a model with the optimisations of the same images."""
    losses = np.mean([run.losses for run in runs], axis=0)
    seconds = np.mean([run.seconds for run in runs], axis=0)
    network_loss = float(np.mean([row["total_loss"] for row in rows]))
    network_s = float(np.mean([row["seconds"] for row in rows]))
    reached = np.flatnonzero(losses <= network_loss)
    equal = int(reached[0]) if len(reached) else None
    last = len(losses) - 1
    return YardstickResult(
        model=model,
        num_images=len(runs),
        network_loss=network_loss,
        network_s=network_s,
        iterations=last,
        losses_at=tuple(float(losses[at]) for at in REPORTED_ITERATIONS if at <= last),
        seconds_at=tuple(float(seconds[at]) for at in REPORTED_ITERATIONS if at <= last),
        equal_iterations=equal,
        times_faster=float(seconds[last if equal is None else equal] / network_s),
    )
