"""Recognises a training run that is finished, by its style model, and refuses one of other settings.

Needed because ``run.json`` is absent if the user has removed the checkpoints to save space.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from stylemill.errors import ConfigError
from stylemill.storage import Storage, resolve
from stylemill.style_file import StyleHeader, load_style_headers
from stylemill.training.config import OMITTED_AT_DEFAULT, SETTINGS_THAT_MAY_CHANGE, TrainConfig, settings_of
from stylemill.training.layout import TrainLayout
from stylemill.training.style_input import StyleInput

BY_DIGEST = ("style_image", "start", "add_to", "teacher", "loss_weights")
"""Fields whose files are compared, not their locations."""


def finished_styles(
    storage: Storage,
    layout: TrainLayout,
    config: TrainConfig,
    styles: Sequence[StyleInput],
    *,
    start: bytes | None,
    teacher: bytes | None,
) -> tuple[StyleHeader, ...]:
    """Return the headers of the run's styles in its final style model; none if training must continue.

    Raises:
        ConfigError: ``style.safetensors`` is not a style model, or was trained with other settings.
        StorageError: storage failed beyond its retries.
    """
    if not storage.exists(layout.style_uri):
        return ()
    try:
        found = {header.name: header for header in load_style_headers(storage, layout.style_uri)}
    except ConfigError as error:
        problem, cure = f"holds a style.safetensors that {error.problem}", "remove it, or choose another --out"
        raise ConfigError("out", config.out, problem, cure) from None
    headers = []
    for style in styles:
        is_only = len(found) == len(styles) == 1  # then it may have been renamed
        header = next(iter(found.values())) if is_only else found.get(style.name)
        if header is None:
            problem = f"differs from {', '.join(found)}, with which {layout.style_uri} was trained"
            raise ConfigError("name", style.name, problem, "use the same, or choose another --out for a new style")
        trained = header.metadata.get("config")
        _check_is_own(layout, config, trained if isinstance(trained, dict) else {}, header.metadata, style)
        _check_files_are_own(layout, config, header.metadata, start, teacher)
        headers.append(header)
    return tuple(headers) if _is_trained(config, headers[0]) else ()


def _is_trained(config: TrainConfig, header: StyleHeader) -> bool:
    """Return whether a final style model has all steps that are asked for."""
    found = header.metadata.get("config")
    trained: dict[str, Any] = found if isinstance(found, dict) else {}
    asked = trained.get("steps", 0)
    if header.metadata.get("steps", asked) >= config.steps:
        return True
    # The run stopped early, or was started with fewer steps.
    return bool(asked >= config.steps and 0 < config.patience <= trained.get("patience", 0))


def _check_is_own(
    layout: TrainLayout, config: TrainConfig, trained: dict[str, Any], metadata: dict[str, Any], style: StyleInput
) -> None:
    """Raise ConfigError unless the model was trained with these settings."""
    cure = "use the same value, or choose another --out for a new style"
    if metadata.get("style_image_sha256") != style.sha256:
        problem = f"is not the one that {layout.style_uri} was trained for"
        raise ConfigError("style_image", style.uri, problem, cure)
    settings = settings_of(config)
    locations = {"content": [resolve(location) for location in config.content]}
    if trained:  # a model records them only where they differ from the default
        defaults = {field.name: field.default for field in fields(TrainConfig) if field.name in OMITTED_AT_DEFAULT}
        settings, trained = {**defaults, **settings}, {**defaults, **trained}
    for name in settings.keys() & trained.keys() - {*SETTINGS_THAT_MAY_CHANGE, *BY_DIGEST}:
        before = [resolve(location) for location in trained[name]] if name == "content" else trained[name]
        if locations.get(name, settings[name]) != before:
            problem = f"differs from {trained[name]!r}, with which {layout.style_uri} was trained"
            raise ConfigError(name, getattr(config, name), problem, cure)


def _check_files_are_own(
    layout: TrainLayout, config: TrainConfig, metadata: dict[str, Any], start: bytes | None, teacher: bytes | None
) -> None:
    """Raise ConfigError unless the model was trained from this start, with this teacher and these layers."""
    if "loss_layers" not in metadata:
        return  # a model of a version that recorded none of them
    cure = "use the same, or choose another --out for a new style"
    for field, data in (("start", start), ("teacher", teacher)):
        if metadata.get(f"{field}_sha256") != (None if data is None else hashlib.sha256(data).hexdigest()):
            problem = f"is not the one that {layout.style_uri} was trained with"
            shown = "add_to" if field == "start" and config.add_to is not None else field
            raise ConfigError(shown, getattr(config, shown), problem, cure)
    for term, layers in metadata["loss_layers"].items():
        asked = dict(getattr(config.layer_weights, term))
        if layers != asked:
            problem = f"differs from {layers}, with which {layout.style_uri} was trained"
            raise ConfigError(f"{term}_layers", asked, problem, cure)
