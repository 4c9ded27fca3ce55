"""Checks a training run before Ray starts, and records its identity under OUT.

``prepare`` reads and checks all inputs, freezes the content listing, and compares the settings with those of an earlier
run in the same output location: equal settings resume that run, other settings are a ConfigError. A finished run is
recognised by its style model.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stylemill.config import from_mapping, parse_yaml, to_yaml
from stylemill.errors import ConfigError, ObjectNotFound, config_errors_for
from stylemill.storage import Storage, resolve
from stylemill.storage.options import preflight_options
from stylemill.storage.uri import can_name_folder, is_inside
from stylemill.storage.user_errors import listing_input, reading_input, writing_output
from stylemill.style_file import (
    StyleHeader,
)
from stylemill.training.config import (
    OMITTED_AT_DEFAULT,
    SCRATCH,
    SETTINGS_THAT_MAY_CHANGE,
    TrainConfig,
    settings_of,
)
from stylemill.training.data import ContentImage, content_from_json, list_content
from stylemill.training.finished import BY_DIGEST, finished_styles
from stylemill.training.layout import TrainLayout
from stylemill.training.start_models import read_model, read_start
from stylemill.training.style_input import StyleInput, read_styles
from stylemill.training.tensorboard import check_tensorboard

if TYPE_CHECKING:
    from stylemill.nn.loss_networks.features import LossNetwork
    from stylemill.nn.loss_networks.weights import VggWeights

FEW_IMAGES = 8
"""A warning is shown for fewer content images."""
_CHECKPOINT = re.compile(r"step-(\d+)\.start-\d+/complete\.json$")
LOSS_REVISIONS = {"pyramid": "pyramid, halved without aliasing"}
"""Current revision of loss networks whose definition has changed.

The revision is part of a run's identity: a run that began with another revision cannot be resumed."""


@dataclass(frozen=True, kw_only=True)
class PreparedTraining:
    """A checked training run whose identity is recorded in storage."""

    config: TrainConfig
    layout: TrainLayout
    styles: tuple[StyleInput, ...]
    """The style images, in the order of the network's styles."""
    content: tuple[ContentImage, ...]
    """The frozen listing of content images."""
    start: bytes | None
    """File of the style model to start from, or to add styles to; None for random numbers."""
    teacher: bytes | None
    """File of the style model whose outputs are learned."""
    loss_weights: bytes | None
    """Parameters of the loss network; None for the pyramid."""
    loss_origin: dict[str, str] | None
    """Source, digest and licence of ``loss_weights``."""
    finished: tuple[StyleHeader, ...]
    """Headers of the trained styles if the run is already finished and there is nothing to do; else empty."""
    warnings: tuple[str, ...] = ()


def prepare(config: TrainConfig) -> PreparedTraining:
    """Check a config's inputs and output, and record the run's identity.

    Raises:
        ConfigError: an input cannot be read, there is no content, or the output cannot be written or holds a run with
            other settings.
    """
    storage, layout = Storage(preflight_options(config.storage)), TrainLayout(_resolved("out", config.out))
    if config.tensorboard:
        check_tensorboard()
    for name in config.style_names:
        if not can_name_folder(name):
            raise ConfigError("name", name, "is not a folder name", "give another --name")
    styles = read_styles(storage, config)
    start, adopted = read_start(storage, config)
    teacher = read_model(storage, "teacher", config.teacher, config.registry)
    with writing_output(config.out):
        finished = finished_styles(storage, layout, config, styles, start=start, teacher=teacher)
        choice = _weights_choice(storage, layout, config)
    # A finished run needs them no more, and a machine that only looks at it may lack them.
    is_needless = bool(finished) and config.loss_weights == "auto"
    weights = None if is_needless else _find_loss_weights(storage, config, choice)
    origin = _recorded_origin(finished) if weights is None else weights.origin.as_mapping()
    content, unreadable = _list_content(storage, config)
    if any(is_inside(layout.out, resolve(location)) for location in config.content):
        raise ConfigError("out", config.out, "is inside the content images", "choose a location outside them")
    if not finished:
        _check_steps(storage, layout, config)
    with writing_output(config.out):
        _record_identity(storage, layout, config, _identity(config, styles, start, teacher, origin))
        if origin is not None:
            storage.create_bytes(layout.loss_weights_uri, json.dumps(origin, indent=1).encode())
        before = _config_before(storage, layout)
        # An equal file is kept: it may have been written by hand, with comments.
        if not finished and before != config:
            storage.write_bytes(layout.config_uri, to_yaml(config).encode())
        storage.create_bytes(layout.content_uri, json.dumps(content, indent=0).encode())
        frozen = content_from_json(storage.read_bytes(layout.content_uri))
    return PreparedTraining(
        config=config,
        layout=layout,
        styles=styles,
        content=frozen,
        start=start,
        teacher=teacher,
        loss_weights=None if weights is None else weights.data,
        loss_origin=origin,
        finished=finished,
        warnings=(
            *adopted,
            *(warning for style in styles for warning in style.warnings),
            *unreadable,
            *_warnings(config, frozen, None if finished else before),
        ),
    )


def _resolved(field: str, uri: str) -> str:
    with config_errors_for(field):
        return resolve(uri)


def _find_loss_weights(storage: Storage, config: TrainConfig, choice: str) -> VggWeights | None:
    """Return the parameters of the loss network, None for the pyramid, after checking that weights and layers fit."""
    from stylemill.nn.loss_networks.weights import load_loss_network

    def read(uri: str) -> bytes:
        with reading_input("loss_weights", uri, expected="torchvision's weights"):
            return storage.read_bytes(_resolved("loss_weights", uri))

    network, found = load_loss_network(config.loss_network, choice, read, config.layer_weights)
    _check_layers_fit(network, config)
    return found


def _check_layers_fit(network: LossNetwork, config: TrainConfig) -> None:
    """Raise ConfigError if the smallest view of a crop is too small for the layers of the loss."""
    import torch

    from stylemill.nn.loss_weights import PALETTE
    from stylemill.training.schedule import smallest_view_px

    side_px = smallest_view_px(config.crop_px, config.least_view)
    problem = f"has layers that views of {side_px} px are too small for"
    cure = "leave out the last ones, or give a larger --crop-px or --least-view"
    try:
        found = network.features(torch.zeros(1, 3, side_px, side_px))
    except ValueError:
        raise ConfigError("content_layers", ",".join(network.layers.content), problem, cure) from None
    if not found.style and network.layers.style.keys() != {PALETTE}:
        raise ConfigError("style_layers", ",".join(network.layers.style), problem, cure)


def _check_steps(storage: Storage, layout: TrainLayout, config: TrainConfig) -> None:
    """Raise ConfigError if an unfinished run has made more steps than it is asked for: it would end half-way."""
    with listing_input("out", layout.out):
        found = [_CHECKPOINT.match(item.key) for item in storage.list_objects(layout.checkpoints_uri)]
    made = max((int(match[1]) for match in found if match), default=0)
    if made > config.steps:
        problem = f"is less than the {made:,} that the run in {layout.out} has made already"
        raise ConfigError("steps", config.steps, problem, "give --steps as when the run was started, or another --out")


def _weights_choice(storage: Storage, layout: TrainLayout, config: TrainConfig) -> str:
    """Return where to take the weights from: if ``auto``, where an earlier start of the run took them from."""
    if config.loss_weights != "auto":
        return config.loss_weights
    try:
        return str(json.loads(storage.read_bytes(layout.loss_weights_uri))["source"])
    except (ObjectNotFound, ValueError, KeyError, TypeError):
        return config.loss_weights  # run.json holds their digest, so another choice is noticed


def _recorded_origin(finished: Sequence[StyleHeader]) -> dict[str, str] | None:
    """Return the origin of the loss weights according to a finished model; None for the pyramid."""
    origin = finished[0].metadata.get("loss_weights") if finished else None
    return {str(key): str(value) for key, value in origin.items()} if isinstance(origin, dict) else None


def _list_content(storage: Storage, config: TrainConfig) -> tuple[list[ContentImage], list[str]]:
    """Return the content images, and a warning if entries cannot be read."""
    problems: list[str] = []
    with listing_input("content", list(config.content)), config_errors_for("content"):
        content = list_content(
            storage,
            config.content,
            lambda found: problems.append(f"{found.uri}: {found.problem or found.problem_type}"),
        )
    if not content:
        cure = "give a prefix, glob, file or list of locations that holds images"
        but = f", but {problems[0]}" if problems else ""
        raise ConfigError("content", list(config.content), f"holds no images{but}", cure)
    entries = f"{len(problems):,} of the content's entries cannot be read, the first: {problems[0]}" if problems else ""
    return content, [entries] * bool(problems)


def _identity(
    config: TrainConfig,
    styles: Sequence[StyleInput],
    start: bytes | None,
    teacher: bytes | None,
    origin: dict[str, str] | None,
) -> dict[str, Any]:
    """Return the settings that a resumed run must have in common with the run that it continues.

    Of the content, only the given locations are part of the identity: the listing of the first start stays in use.
    """
    settings = {name: value for name, value in settings_of(config).items() if name not in SETTINGS_THAT_MAY_CHANGE}
    digests = [style.sha256 for style in styles]
    settings |= {
        "style_image": digests[0] if len(digests) == 1 else digests,
        "content": [resolve(location) for location in config.content],
    }
    settings["loss_network"] = LOSS_REVISIONS.get(config.loss_network, config.loss_network)
    # The defaults of a later version must not change a run that is under way.
    settings["content_layers"] = dict(config.layer_weights.content)
    settings["style_layers"] = dict(config.layer_weights.style)
    settings["loss_weights"] = None if origin is None else origin.get("sha256")
    # Last: another architecture also means another start, and the architecture is what the user has changed.
    settings.pop("start")
    settings["start"] = SCRATCH if start is None else hashlib.sha256(start).hexdigest()
    if config.add_to is not None:
        settings["add_to"] = settings["start"]
    if teacher is not None:
        settings["teacher"] = hashlib.sha256(teacher).hexdigest()
    return settings


def _record_identity(storage: Storage, layout: TrainLayout, config: TrainConfig, identity: dict[str, Any]) -> None:
    """Create the run's ``run.json``, or check that it is equal.

    Raises:
        ConfigError: the output holds a run that was started with other settings.
    """
    if storage.create_bytes(layout.identity_uri, json.dumps(identity, indent=1, ensure_ascii=False).encode()):
        return
    try:
        recorded = json.loads(storage.read_bytes(layout.identity_uri))
    except ValueError as error:
        cure = "choose another --out"
        raise ConfigError("out", layout.out, f"holds a run whose run.json is damaged ({error})", cure) from None
    dropped = {name: None for name in OMITTED_AT_DEFAULT if name in recorded}
    for name, value in {**dropped, **identity}.items():
        if recorded.get(name) != value:
            by_digest = name in BY_DIGEST
            before = "is not the file" if by_digest else f"differs from {recorded.get(name)!r},"
            problem = f"{before} with which the run in {layout.out} was started"
            shown = settings_of(config).get(name, getattr(config, name)) if by_digest else value
            raise ConfigError(name, shown, problem, "use the same to resume, or another --out for a new run")


def _config_before(storage: Storage, layout: TrainLayout) -> TrainConfig | None:
    """Return the config of the run's previous start; None at its first start or if the file cannot be read."""
    try:
        text = storage.read_bytes(layout.config_uri).decode()
        return from_mapping(TrainConfig, parse_yaml(text, source=layout.config_uri))
    except (ObjectNotFound, UnicodeDecodeError, ConfigError):
        return None  # only a warning depends on this


def _warnings(config: TrainConfig, content: tuple[ContentImage, ...], before: TrainConfig | None) -> tuple[str, ...]:
    warnings = []
    if len(content) < FEW_IMAGES:
        images = f"{len(content)} content image" + "s" * (len(content) != 1)
        warnings.append(f"only {images}: the style will fit what they show and may smear on other pictures; add more")
    if before is not None and before.steps != config.steps:
        warnings.append(
            f"steps changes from {before.steps} to {config.steps}, and with it the schedule of the learning rate: "
            "the result is not that of an undisturbed run"
        )
    return tuple(warnings)
