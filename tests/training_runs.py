"""Comparing what two training runs ended with."""

from __future__ import annotations

import io
from typing import Any

import pyarrow.parquet as pq

from stylemill.storage import Storage
from stylemill.style_model import load_style_model
from stylemill.training.checkpoint import Checkpoints

REPRODUCIBLE = [
    "step",
    "loss",
    "content_loss",
    "style_loss",
    "tv_loss",
    "grid_loss",
    "lattice_loss",
    "teacher_loss",
    "steady_loss",
    "photo_loss",
    "gradient_norm",
    "learning_rate",
    "skipped",
]


def weights_of(out: object) -> dict[str, Any]:
    """Return the exported weights of a run."""
    return load_style_model(Storage(), f"{out}/style.safetensors").state_dict


def rows_of(out: object) -> list[dict[str, Any]]:
    """Return those columns of a run's metrics that do not depend on time and machine."""
    return pq.read_table(io.BytesIO(Storage().read_bytes(f"{out}/metrics.parquet"))).select(REPRODUCIBLE).to_pylist()


def last_state_of(out: object) -> dict[str, Any]:
    """Return weights, mean, optimizer and generator of a run's last checkpoint."""
    newest = Checkpoints(Storage(), f"{out}/checkpoints").newest()
    assert newest is not None
    return newest.tensors


def assert_same_run(one: object, other: object) -> None:
    """Weights, optimizer state and rows are equal to the bit."""
    for first, second in ((weights_of(one), weights_of(other)), (last_state_of(one), last_state_of(other))):
        assert first.keys() == second.keys()
        assert [key for key in first if not first[key].equal(second[key])] == []
    assert rows_of(one) == rows_of(other)
