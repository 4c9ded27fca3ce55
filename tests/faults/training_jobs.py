"""Training as a process of its own, and what a test has to know about it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.processes import Job, start_stylemill, wait_for

Start = Callable[..., Job]
"""``start(out, **settings)`` begins ``stylemill train`` in a process group of its own."""

SETTINGS: dict[str, Any] = {
    "width": 0.125, "crop_px": 64, "batch_size": 4, "style_size_px": 64, "cpus_per_worker": 1, "keep_checkpoints": 3,
    "loss_network": "pyramid",
}  # fmt: skip


def start_training(pictures: str, out: object, *, environment: dict[str, str] | None = None, **settings: Any) -> Job:
    """Begin to train on pictures: ``style.png`` and the folder ``content``."""
    all_settings = {"style_image": f"{pictures}/style.png", "content": f"{pictures}/content", "out": out}
    all_settings |= SETTINGS | settings
    words = [word for name, value in all_settings.items() for word in (f"--{name.replace('_', '-')}", value)]
    return start_stylemill("train", *words, **(environment or {}))


def wait_for_checkpoint(out: Path, step: int, job: Job) -> None:
    """Wait until a checkpoint of this step or a later one is complete."""
    wait_for(f"checkpoint {step}", job, lambda: any(number >= step for number in complete_checkpoints(out)))


def complete_checkpoints(out: Path) -> list[int]:
    """Return the steps of the complete checkpoints of a local run."""
    markers = (out / "checkpoints").glob("step-*/complete.json")
    return sorted(int(marker.parent.name[len("step-") :].split(".")[0]) for marker in markers)


def resumed_at(said: str) -> list[int]:
    """Return the steps at which a job says that it was resumed."""
    return [int(step) for step in re.findall(r"^resumed at step (\d+)$", said, re.MULTILINE)]
