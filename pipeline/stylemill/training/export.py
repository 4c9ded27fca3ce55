"""Exports a finished training run as a style model: averaged weights, and metadata with the run's history."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import torch

from stylemill import __version__
from stylemill.config import digest
from stylemill.storage import Storage
from stylemill.style_model import StyleModel, save_style_model
from stylemill.training.checkpoint import TrainState
from stylemill.training.config import TrainConfig, settings_of
from stylemill.training.layout import LeftOutImage, Row, TrainLayout

LOSS_TAIL = 50
"""Number of last losses in the model's metadata."""
MAX_FAILED_LISTED = 100
"""Number of left-out content images in the model's metadata."""


def export_style(
    storage: Storage,
    layout: TrainLayout,
    config: TrainConfig,
    state: TrainState,
    metrics: Sequence[Row],
    *,
    loss_digest: str,
    loss_weights: Mapping[str, str] | None,
    style_sha256: str,
    start_sha256: str | None,
    teacher_sha256: str | None,
    num_content: int,
    left_out: Sequence[LeftOutImage],
) -> StyleModel:
    """Write the averaged weights as a style model.

    Args:
        storage: holds the run.
        layout: of the run.
        config: of the run.
        state: after the last step.
        metrics: rows of all steps.
        loss_digest: digest of the loss network.
        loss_weights: source, digest and licence of the loss network's weights; None for the pyramid.
        style_sha256: digest of the style image's file.
        start_sha256: digest of the style model that training started from; None after a start from random numbers.
        teacher_sha256: digest of the teacher's file; None without a teacher.
        num_content: length of the content listing.
        left_out: content images that could not be decoded.

    Returns:
        The model, with the digest of its file.
    """
    weights = {name: tensor.detach().to("cpu", torch.float32) for name, tensor in state.average.items()}
    settings = {name: value for name, value in settings_of(config).items() if name not in ("storage", "out")}
    layers = config.layer_weights
    metadata: dict[str, Any] = {
        "config": settings,
        "steps": state.step,
        "samples_seen": state.step * config.batch_size,
        "num_content": num_content,
        "failed_content": {entry.uri: f"{entry.error_type}: {entry.error}" for entry in left_out[:MAX_FAILED_LISTED]},
        "num_skipped_updates": state.num_skipped,
        "loss_tail": [_for_json(row["loss"]) for row in metrics[-LOSS_TAIL:]],
        "loss_network": config.loss_network,
        "loss_network_sha256": loss_digest,
        "loss_layers": {"content": dict(layers.content), "style": dict(layers.style)},
        "style_image_sha256": style_sha256,
        "stylemill": __version__,
        "torch": torch.__version__,
        "trained_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    if loss_weights is not None:
        metadata["loss_weights"] = dict(loss_weights)
    if start_sha256 is not None:
        metadata["start_sha256"] = start_sha256
    if teacher_sha256 is not None:
        metadata["teacher_sha256"] = teacher_sha256
    model = StyleModel(
        name=config.style_name,
        version=_version(weights, settings),
        architecture=state.net.architecture,
        state_dict=weights,
        metadata=metadata,
    )
    return save_style_model(storage, layout.style_uri, model)


def _for_json(loss: float) -> float | None:
    """Return a loss rounded to 6 digits, or None if it is not finite, as after a skipped step."""
    return round(loss, 6) if math.isfinite(loss) else None


def _version(weights: Mapping[str, torch.Tensor], settings: Mapping[str, Any]) -> str:
    """Return the version: 12 hexadecimal digits of the digest of settings and weights, the same for equal trainings."""
    sha256 = hashlib.sha256(digest(settings).encode())
    for name in sorted(weights):
        sha256.update(weights[name].contiguous().numpy().tobytes())
    return sha256.hexdigest()[:12]
