"""Exports a finished training run as a style model: averaged weights, and metadata with the run's history.

A run over several styles gives one file of all, a run that adds styles a file of the old ones and the new ones.
"""

from __future__ import annotations

import base64
import hashlib
import io
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import torch
from PIL import Image

from stylemill import __version__
from stylemill.config import digest
from stylemill.storage import Storage
from stylemill.style_file import OWN_PARTS, PAINTS_PHOTOGRAPHS, PICTURE, merge_styles, split_styles
from stylemill.style_model import StyleModel, from_bytes, to_bytes
from stylemill.training.checkpoint import TrainState
from stylemill.training.config import TrainConfig, settings_of
from stylemill.training.layout import LeftOutImage, Row, TrainLayout
from stylemill.training.style_input import StyleInput

LOSS_TAIL = 50
"""Number of last losses in the model's metadata."""
PICTURE_PX = 192
"""Longest side of the picture of a style in its metadata."""
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
    styles: Sequence[StyleInput],
    added_to: bytes | None,
    start_sha256: str | None,
    teacher_sha256: str | None,
    num_content: int,
    left_out: Sequence[LeftOutImage],
) -> None:
    """Write the averaged weights as a style model.

    Args:
        storage: holds the run.
        layout: of the run.
        config: of the run.
        state: after the last step.
        metrics: rows of all steps.
        loss_digest: digest of the loss network.
        loss_weights: source, digest and licence of the loss network's weights; None for the pyramid.
        styles: the styles, in the order of the network's styles.
        added_to: file of the style model to which the styles are added; None for a file of these styles alone.
        start_sha256: digest of the style model that training started from; None after a start from random numbers.
        teacher_sha256: digest of the teacher's file; None without a teacher.
        num_content: length of the content listing.
        left_out: content images that could not be decoded.
    """
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
    if len(styles) > 1:
        metadata["trained_together"] = [style.name for style in styles]
    files = {} if added_to is None else {str(config.add_to): added_to}
    dtypes = {} if added_to is None else _dtypes_of(added_to)
    for number, style in enumerate(styles):
        weights = _weights_of(number, len(styles), state, dtypes)
        own_settings = {**settings, "style_image": None if style.png is None else style.uri}
        own: dict[str, Any] = {PAINTS_PHOTOGRAPHS: True}
        if style.png is not None:
            own = {"style_image_sha256": style.sha256, PICTURE: _picture(style.png)}
        model = StyleModel(
            name=style.name,
            version=_version(weights, own_settings),
            architecture=state.net.architecture,
            state_dict=weights,
            metadata={**metadata, "config": own_settings, **own},
        )
        files[f"the style {style.name}"] = to_bytes(model)
    storage.write_bytes(layout.style_uri, merge_styles(files))


def _picture(png: bytes) -> str:
    """Return the style image, scaled down, as the base64 of a WebP file of a few kilobytes."""
    image = Image.open(io.BytesIO(png))
    image.thumbnail((PICTURE_PX, PICTURE_PX), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=75, method=6)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _weights_of(
    number: int, num_styles: int, state: TrainState, dtypes: Mapping[str, torch.dtype]
) -> dict[str, torch.Tensor]:
    """Return the averaged weights of one style of the network, in float32 or the dtype that is given for them."""
    weights = {}
    for name, tensor in state.average.items():
        own = tensor[number] if num_styles > 1 and OWN_PARTS in name else tensor
        weights[name] = own.detach().to("cpu", dtypes.get(name, torch.float32))
    return weights


def _dtypes_of(file: bytes) -> dict[str, torch.dtype]:
    """Return the dtypes in which a file stores its weights: convolutions must come back to the last bit."""
    (first, *_) = split_styles(file, source="")
    return {name: tensor.dtype for name, tensor in from_bytes(first, source="").state_dict.items()}


def _for_json(loss: float) -> float | None:
    """Return a loss rounded to 6 digits, or None if it is not finite, as after a skipped step."""
    return round(loss, 6) if math.isfinite(loss) else None


def _version(weights: Mapping[str, torch.Tensor], settings: Mapping[str, Any]) -> str:
    """Return the version: 12 hexadecimal digits of the digest of settings and weights, the same for equal trainings."""
    sha256 = hashlib.sha256(digest(settings).encode())
    for name in sorted(weights):
        sha256.update(weights[name].contiguous().numpy().tobytes())
    return sha256.hexdigest()[:12]
