"""Whether a run was finished before: its style model is there, is its own, and nothing more is asked of it."""

from __future__ import annotations

from typing import Any

from pipeline.errors import ConfigError
from pipeline.storage import Storage, resolve
from pipeline.style_model import StyleHeader, load_style_header
from pipeline.training.config import MAY_CHANGE, TrainConfig, settings_of
from pipeline.training.layout import TrainLayout


def finished_style(storage: Storage, layout: TrainLayout, config: TrainConfig, style_sha256: str) -> StyleHeader | None:
    """Return the header of the run's final style model, or None if there is still something to train.

    Args:
        storage: where the run is.
        layout: of the run.
        config: what is asked for.
        style_sha256: digest of the style image's file.

    Raises:
        ConfigError: what lies in the style model's place is none, or was trained by another run.
        StorageError: storage failed beyond its retries.
    """
    if not storage.exists(layout.style_uri):
        return None
    try:
        header = load_style_header(storage, layout.style_uri)
    except ConfigError as error:
        problem, cure = f"holds a style.safetensors that {error.problem}", "remove it, or choose another --out"
        raise ConfigError("out", config.out, problem, cure) from None
    found = header.metadata.get("config")
    trained: dict[str, Any] = found if isinstance(found, dict) else {}
    _check_is_own(layout, config, trained, header.metadata.get("style_image_sha256"), style_sha256)
    asked = trained.get("steps", 0)
    if header.metadata.get("steps", asked) >= config.steps:
        return header
    # It stopped early, or fewer steps were asked for.
    is_as_patient = 0 < config.patience <= trained.get("patience", 0)
    return header if asked >= config.steps and is_as_patient else None


def _check_is_own(
    layout: TrainLayout, config: TrainConfig, trained: dict[str, Any], trained_on: str | None, style_sha256: str
) -> None:
    """Raise ConfigError unless the model was trained with these settings.

    Usually the run's identity has told so before. It is gone where somebody removed the checkpoints to save space.
    """
    cure = "use the same as before, or choose another --out for a new style"
    if trained_on != style_sha256:
        problem = f"is not the one that {layout.style_uri} was trained for"
        raise ConfigError("style_image", config.style_image, problem, cure)
    settings = settings_of(config)
    locations = {"content": [resolve(location) for location in config.content]}
    for name in settings.keys() & trained.keys() - {*MAY_CHANGE, "style_image", "warm_start", "teacher"}:
        before = [resolve(location) for location in trained[name]] if name == "content" else trained[name]
        if locations.get(name, settings[name]) != before:
            problem = f"differs from {trained[name]!r}, with which {layout.style_uri} was trained"
            raise ConfigError(name, getattr(config, name), problem, cure)
