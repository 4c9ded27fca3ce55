"""Checks a training run before Ray starts, and records its identity under OUT.

``prepare`` reads and checks all inputs, freezes the content listing, and compares the settings with those of an earlier
run in the same output location: equal settings resume that run, other settings are a ConfigError. A finished run is
recognised by its style model.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stylemill.config import from_mapping, parse_yaml, to_yaml
from stylemill.errors import ConfigError, ObjectNotFound, config_errors_for
from stylemill.nn.architecture import Architecture
from stylemill.registry import locate_model
from stylemill.storage import Storage, resolve
from stylemill.storage.options import preflight_options
from stylemill.storage.uri import can_name_folder, is_inside
from stylemill.storage.user_errors import listing_input, reading_input, writing_output
from stylemill.style_file import StyleHeader, load_style_header, read_header
from stylemill.style_model import from_bytes
from stylemill.training.config import (
    BUILTIN,
    OMITTED_AT_DEFAULT,
    SCRATCH,
    SETTINGS_THAT_MAY_CHANGE,
    TrainConfig,
    settings_of,
)
from stylemill.training.data import ContentImage, content_from_json, list_content
from stylemill.training.layout import TrainLayout
from stylemill.training.start_network import builtin_start
from stylemill.training.style_input import StyleInput, read_style
from stylemill.training.tensorboard import check_tensorboard

if TYPE_CHECKING:
    from stylemill.nn.loss_networks.features import LossNetwork
    from stylemill.nn.loss_networks.weights import VggWeights

_BY_DIGEST = ("style_image", "start", "teacher", "loss_weights")
"""Fields whose files are compared, not their locations."""
FEW_IMAGES = 8
"""A warning is shown for fewer content images."""
LOSS_REVISIONS = {"pyramid": "pyramid, halved without aliasing"}
"""Current revision of loss networks whose definition has changed.

The revision is part of a run's identity: a run that began with another revision cannot be resumed."""


@dataclass(frozen=True, kw_only=True)
class PreparedTraining:
    """A checked training run whose identity is recorded in storage."""

    config: TrainConfig
    layout: TrainLayout
    style_png: bytes
    """The style image as the loss sees it: upright, RGB, resized, PNG."""
    style_sha256: str
    """Digest of the style image's file."""
    content: tuple[ContentImage, ...]
    """The frozen listing of content images."""
    start: bytes | None
    """File of the style model to start from; None for random numbers."""
    teacher: bytes | None
    """File of the style model whose outputs are learned."""
    loss_weights: bytes | None
    """Parameters of the loss network; None for the pyramid."""
    loss_origin: dict[str, str] | None
    """Source, digest and licence of ``loss_weights``."""
    finished: StyleHeader | None
    """Header of the final style model if the run is already finished: there is nothing to do."""
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
    if not can_name_folder(config.style_name):
        raise ConfigError("name", config.style_name, "is not a folder name", "give another --name")
    style = read_style(storage, config)
    start, adopted = _read_start(storage, config)
    teacher = _read_model(storage, "teacher", config.teacher, config.registry)
    with writing_output(config.out):
        finished = _finished_style(storage, layout, config, style.sha256, start=start, teacher=teacher)
        choice = _weights_choice(storage, layout, config)
    # A finished run needs them no more, and a machine that only looks at it may lack them.
    is_needless = finished is not None and config.loss_weights == "auto"
    weights = None if is_needless else _find_loss_weights(storage, config, choice)
    origin = _recorded_origin(finished) if weights is None else weights.origin.as_mapping()
    content, unreadable = _list_content(storage, config)
    if any(is_inside(layout.out, resolve(location)) for location in config.content):
        raise ConfigError("out", config.out, "is inside the content images", "choose a location outside them")
    with writing_output(config.out):
        _record_identity(storage, layout, config, _identity(config, style, start, teacher, origin))
        if origin is not None:
            storage.create_bytes(layout.loss_weights_uri, json.dumps(origin, indent=1).encode())
        before = _config_before(storage, layout)
        # An equal file is kept: it may have been written by hand, with comments.
        if finished is None and before != config:
            storage.write_bytes(layout.config_uri, to_yaml(config).encode())
        storage.create_bytes(layout.content_uri, json.dumps(content, indent=0).encode())
        frozen = content_from_json(storage.read_bytes(layout.content_uri))
    return PreparedTraining(
        config=config,
        layout=layout,
        style_png=style.png,
        style_sha256=style.sha256,
        content=frozen,
        start=start,
        teacher=teacher,
        loss_weights=None if weights is None else weights.data,
        loss_origin=origin,
        finished=finished,
        warnings=(
            *adopted,
            *style.warnings,
            *unreadable,
            *_warnings(config, frozen, before if finished is None else None),
        ),
    )


def _resolved(field: str, uri: str) -> str:
    with config_errors_for(field):
        return resolve(uri)


def _read_model(storage: Storage, field: str, uri: str | None, registry: str | None) -> bytes | None:
    if uri is None:
        return None
    with config_errors_for(field, value=uri, keep=("registry",)):
        located = locate_model(storage, uri, registry)
        load_style_header(storage, located)
        data = storage.read_bytes(located)
        from_bytes(data, source=uri)
    return data


def _read_start(storage: Storage, config: TrainConfig) -> tuple[bytes | None, tuple[str, ...]]:
    """Return the file of the model to start from, None for random numbers, and warnings about the architecture.

    Raises:
        ConfigError: the model cannot be read, or the config asks for another architecture than it has.
    """
    if config.start == SCRATCH:
        return None, ()
    is_builtin = config.start == BUILTIN
    try:
        start = builtin_start() if is_builtin else _read_model(storage, "start", config.start, config.registry)
    except ConfigError as error:
        cure = f"{error.cure}, or write {BUILTIN} or {SCRATCH}"
        raise ConfigError(error.field, error.value, error.problem, cure) from error
    assert start is not None
    model = Architecture.from_mapping(read_header(start, source=config.start).architecture)
    adopted = []
    for name in ("width", "upsampling", "norm", "residual"):
        asked, has = getattr(config, name), getattr(model, name)
        if asked == has:
            continue
        if is_builtin:
            problem = f"the built-in start network has {name} {has}, not {asked}"
            return None, (f"{problem}: training starts from random numbers and needs several times the steps",)
        if asked != getattr(TrainConfig, name):
            cure = f"leave it out to take {has}, or start without those weights"
            raise ConfigError(name, asked, f"differs from the style model to start from, which has {has}", cure)
        adopted.append(f"{name} {has}")
    note = f"the network adopts {', '.join(adopted)} from the style model that it starts from"
    return start, (note,) * bool(adopted)


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


def _weights_choice(storage: Storage, layout: TrainLayout, config: TrainConfig) -> str:
    """Return where to take the weights from: if ``auto``, where an earlier start of the run took them from."""
    if config.loss_weights != "auto":
        return config.loss_weights
    try:
        return str(json.loads(storage.read_bytes(layout.loss_weights_uri))["source"])
    except (ObjectNotFound, ValueError, KeyError, TypeError):
        return config.loss_weights  # run.json holds their digest, so another choice is noticed


def _recorded_origin(finished: StyleHeader | None) -> dict[str, str] | None:
    """Return the origin of the loss weights according to a finished model; None for the pyramid."""
    origin = None if finished is None else finished.metadata.get("loss_weights")
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
    style: StyleInput,
    start: bytes | None,
    teacher: bytes | None,
    origin: dict[str, str] | None,
) -> dict[str, Any]:
    """Return the settings that a resumed run must have in common with the run that it continues.

    Of the content, only the given locations are part of the identity: the listing of the first start stays in use.
    """
    settings = {name: value for name, value in settings_of(config).items() if name not in SETTINGS_THAT_MAY_CHANGE}
    settings |= {"style_image": style.sha256, "content": [resolve(location) for location in config.content]}
    settings["loss_network"] = LOSS_REVISIONS.get(config.loss_network, config.loss_network)
    # The defaults of a later version must not change a run that is under way.
    settings["content_layers"] = dict(config.layer_weights.content)
    settings["style_layers"] = dict(config.layer_weights.style)
    settings["loss_weights"] = None if origin is None else origin.get("sha256")
    # Last: another architecture also means another start, and the architecture is what the user has changed.
    settings.pop("start")
    settings["start"] = SCRATCH if start is None else hashlib.sha256(start).hexdigest()
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
            by_digest = name in _BY_DIGEST
            before = "is not the file" if by_digest else f"differs from {recorded.get(name)!r},"
            problem = f"{before} with which the run in {layout.out} was started"
            shown = getattr(config, name) if by_digest else value
            raise ConfigError(name, shown, problem, "use the same to resume, or another --out for a new run")


def _config_before(storage: Storage, layout: TrainLayout) -> TrainConfig | None:
    """Return the config of the run's previous start; None at its first start or if the file cannot be read."""
    try:
        text = storage.read_bytes(layout.config_uri).decode()
        return from_mapping(TrainConfig, parse_yaml(text, source=layout.config_uri))
    except (ObjectNotFound, UnicodeDecodeError, ConfigError):
        return None  # only a warning depends on this


def _finished_style(
    storage: Storage,
    layout: TrainLayout,
    config: TrainConfig,
    style_sha256: str,
    *,
    start: bytes | None,
    teacher: bytes | None,
) -> StyleHeader | None:
    """Return the header of the run's final style model, or None if training must continue.

    Raises:
        ConfigError: ``style.safetensors`` is not a style model, or was trained with other settings.
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
    _check_files_are_own(layout, config, header.metadata, start, teacher)
    asked = trained.get("steps", 0)
    if header.metadata.get("steps", asked) >= config.steps:
        return header
    # The run stopped early, or was started with fewer steps.
    is_as_patient = 0 < config.patience <= trained.get("patience", 0)
    return header if asked >= config.steps and is_as_patient else None


def _check_is_own(
    layout: TrainLayout, config: TrainConfig, trained: dict[str, Any], trained_on: str | None, style_sha256: str
) -> None:
    """Raise ConfigError unless the model was trained with these settings.

    Needed because ``run.json`` is absent if the user has removed the checkpoints to save space.
    """
    cure = "use the same value, or choose another --out for a new style"
    if trained_on != style_sha256:
        problem = f"is not the one that {layout.style_uri} was trained for"
        raise ConfigError("style_image", config.style_image, problem, cure)
    settings = settings_of(config)
    locations = {"content": [resolve(location) for location in config.content]}
    for name in settings.keys() & trained.keys() - {*SETTINGS_THAT_MAY_CHANGE, *_BY_DIGEST}:
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
            raise ConfigError(field, getattr(config, field), problem, cure)
    for term, layers in metadata["loss_layers"].items():
        asked = dict(getattr(config.layer_weights, term))
        if layers != asked:
            problem = f"differs from {layers}, with which {layout.style_uri} was trained"
            raise ConfigError(f"{term}_layers", asked, problem, cure)


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
