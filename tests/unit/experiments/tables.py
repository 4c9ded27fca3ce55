"""Tables of measurements and simulated losses that the tests of experiments share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from stylemill.evaluation.config import METRICS
from stylemill.evaluation.schema import EVALUATION_SCHEMA
from stylemill.manifest.schema import make_table
from tests.drawn import image_bytes


def measured(model: str, values: Any, *, judge: str = "j", start: int = 0, **columns: Any) -> list[dict[str, Any]]:
    fixed = {"model": model, "model_sha256": "0", "uri": "u", "stratum": "", "status": "ok", "judge": judge}
    metrics = dict.fromkeys(METRICS, 1.0)
    return [
        {**fixed, **metrics, "key": f"{number:03d}.jpg", "total_loss": float(value)}
        | {name: float(column[number - start]) for name, column in columns.items()}
        for number, value in enumerate(values, start)
    ]


def table_of(*rows: list[dict[str, Any]]) -> pa.Table:
    return make_table([row for some in rows for row in some], EVALUATION_SCHEMA)


def losses(num: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    image = rng.uniform(1, 2, num)
    return image, image + rng.normal(0, 0.05, num)


MODELS = ("dunes-1", "waves-1")


RUNS = 1000


TOLERANCE = 0.02
"""Three standard errors of a share of 0.05 over 1,000 runs."""


def simulated_losses(rng: np.random.Generator, num: int, change: float = 0.0) -> tuple[np.ndarray, float]:
    """Return (RUNS, num) differences of skewed, correlated losses, and their standard deviation."""
    image = rng.lognormal(0.0, 0.4, (RUNS, num))
    noise = rng.gamma(4.0, 0.05, (RUNS, num)) - rng.gamma(4.0, 0.05, (RUNS, num))
    return noise * image + change, float(np.std(noise * image))


def measured_pictures(folder: Path, num: int = 4, models: tuple[str, ...] = MODELS) -> Any:
    rows = []
    for number in range(num):
        for seed, model in enumerate(models):
            picture = folder / f"{model}-{number}.png"
            picture.write_bytes(image_bytes(64, 80, seed=seed * 10 + number, format="PNG"))
            rows.append(
                {"model": model, "model_sha256": "0", "key": f"{number}.jpg", "uri": "u", "stratum": "", "judge": "j"}
                | {
                    "status": "ok",
                    "picture_uri": str(picture),
                    "source_picture_uri": str(folder / f"{models[0]}-0.png"),
                }
            )
    return make_table(rows, EVALUATION_SCHEMA)
