"""The original paper's yardstick: to how many iterations of direct optimisation a network is equal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline.evaluation.evaluate import PreparedEvaluation, load_source
from pipeline.evaluation.optimize import Optimization, optimize_pixels
from pipeline.images.isolated import IsolatedDecoder
from pipeline.images.options import DecodeOptions
from pipeline.storage import Storage

MARKS = (50, 100, 300, 500)
"""Iterations at which the optimisation is read."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One network beside the optimisation of the same images under the same loss."""

    model: str
    num_images: int
    network_loss: float
    """Mean total loss."""
    network_s: float
    """Mean seconds for an image."""
    iterations: int
    """Of the optimisation."""
    mark_losses: tuple[float, ...]
    """Mean total loss of the optimisation at each of MARKS that it reached."""
    mark_s: tuple[float, ...]
    """Mean seconds that it took to each of MARKS."""
    equal_iterations: int | None
    """First iteration at which the optimisation's mean loss is no higher; None if all do not suffice, 0 if the
    images themselves are as good."""
    times_faster: float
    """Seconds of that many iterations (of all where they do not suffice) over the network's."""

    @property
    def sentence(self) -> str:
        """The reading in words."""
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
) -> list[Reading]:
    """Optimise the first images of an evaluation directly and hold every model against it.

    Args:
        storage: where the images are.
        prepared: the evaluation.
        table: its rows.
        show: told how far it is.
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
                    prepared.bench,
                    source_HWC,
                    iterations=prepared.config.yardstick_iterations,
                    on_progress=lambda step, loss, what=what: show(f"{what}: iteration {step}, loss {loss:.3f}"),  # type: ignore[misc]
                )
            )
    return [
        read_yardstick(label, [row for row in rows if row["model"] == label and row["key"] in keys], runs)
        for label in prepared.models
        if keys
    ]


def read_yardstick(model: str, rows: Sequence[dict], runs: Sequence[Optimization]) -> Reading:
    """Hold a model's rows against the optimisations of the same images."""
    losses = np.mean([run.losses for run in runs], axis=0)
    seconds = np.mean([run.seconds for run in runs], axis=0)
    network_loss = float(np.mean([row["total_loss"] for row in rows]))
    network_s = float(np.mean([row["seconds"] for row in rows]))
    reached = np.flatnonzero(losses <= network_loss)
    equal = int(reached[0]) if len(reached) else None
    last = len(losses) - 1
    return Reading(
        model=model,
        num_images=len(runs),
        network_loss=network_loss,
        network_s=network_s,
        iterations=last,
        mark_losses=tuple(float(losses[mark]) for mark in MARKS if mark <= last),
        mark_s=tuple(float(seconds[mark]) for mark in MARKS if mark <= last),
        equal_iterations=equal,
        times_faster=float(seconds[last if equal is None else equal] / network_s),
    )
