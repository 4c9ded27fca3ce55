"""Rows and images of a small run, drawn here, that the report's tests share."""

from __future__ import annotations

import datetime as dt
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from stylemill.manifest.schema import MANIFEST_SCHEMA, make_table

START = dt.datetime(2026, 3, 1, 12, 0, tzinfo=dt.UTC)


@pytest.fixture
def manifest_rows() -> Callable[..., pa.Table]:
    """Return a builder of manifest tables from partial rows."""

    def build(*rows: dict[str, Any]) -> pa.Table:
        whole = []
        for number, row in enumerate(rows):
            defaults = {
                "key": f"{number:04d}.jpg",
                "source_uri": f"/in/{number:04d}.jpg",
                "status": "ok",
                "style": "waves",
                "style_version": "1",
                "model_sha256": "ab" * 32,
                "fingerprint": "cd" * 32,
                "run_id": "run-1",
                "attempt": 1,
                "finished_at": START + dt.timedelta(seconds=number),
            }
            if row.get("status", "ok") == "ok":
                defaults |= {
                    "source_bytes": 1000,
                    "output_bytes": 3000,
                    "output_uri": f"/out/{number:04d}.jpg",
                    "source_format": "jpeg",
                    "output_format": "jpeg",
                    "width_px": 200,
                    "height_px": 100,
                    "forward": "whole",
                    "decode_ms": 2.0,
                    "stylize_ms": 30.0,
                    "encode_ms": 4.0,
                }
            whole.append(defaults | row)
        return make_table(whole, MANIFEST_SCHEMA)

    return build


@pytest.fixture
def metrics() -> pa.Table:
    """Return 60 steps of training with one step whose loss was not finite."""
    steps = np.arange(60)
    loss = 4.0 * np.exp(-steps / 15.0) + 0.5
    loss[20] = np.nan
    return pa.table(
        {
            "step": steps,
            "loss": loss,
            "content_loss": np.full(60, 0.2),
            "style_loss": loss - 0.2,
            "tv_loss": np.zeros(60),
            "grid_loss": np.full(60, 0.01),
            "lattice_loss": np.full(60, 0.01),
            "teacher_loss": pa.nulls(60, pa.float64()),
            "gradient_norm": np.full(60, 3.0),
            "data_wait_s": np.full(60, 0.04),
            "learning_rate": np.linspace(4e-3, 1e-5, 60),
            "images_per_s": np.full(60, 6.5),
            "skipped": np.isnan(loss),
            "peak_memory_bytes": np.full(60, 3 * 2**29),
        }
    )


@pytest.fixture
def encoded() -> Callable[..., bytes]:
    """Return a builder of small encoded images."""

    def build(
        size: tuple[int, int] = (200, 100), *, mode: str = "RGB", image_format: str = "PNG", **options: Any
    ) -> bytes:
        rng = np.random.default_rng(5)
        channels = {"L": 1, "RGB": 3, "RGBA": 4}[mode]
        pixels = rng.integers(0, 256, size=(size[1], size[0], channels), dtype=np.uint8)
        image = Image.fromarray(pixels.squeeze(), mode)
        buffer = io.BytesIO()
        image.save(buffer, format=image_format, **options)
        return buffer.getvalue()

    return build
