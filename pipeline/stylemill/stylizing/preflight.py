"""Everything that can be found wrong before Ray starts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

from stylemill.config import to_yaml
from stylemill.errors import ConfigError, config_errors_for
from stylemill.manifest.commit import Success, read_success, remove_pending
from stylemill.manifest.layout import RunLayout
from stylemill.manifest.read import CommittedRun, load_history
from stylemill.registry import locate_model
from stylemill.storage import Storage, resolve
from stylemill.storage.options import first_look
from stylemill.storage.sources import find_sources, reaches_into, sources_root
from stylemill.storage.uri import is_inside, scheme
from stylemill.storage.user_errors import listing_input, reading_input, writing_output
from stylemill.style_model import StyleModel, load_style_model, to_bytes
from stylemill.stylizing.config import StylizeConfig
from stylemill.stylizing.identity import FollowUp, RunIdentity, differences, identify
from stylemill.stylizing.incremental import follow_up

OWN_FOLDERS = ("images", "manifests", "runs")


@dataclass(frozen=True, kw_only=True)
class PreparedRun:
    """A checked run: its identity stands in storage, its models lie in the run's folder."""

    config: StylizeConfig
    identity: RunIdentity
    layout: RunLayout
    success: Success | None
    """Set if the run was committed before: there is nothing to do."""
    history: tuple[CommittedRun, ...] = ()
    """Committed runs over the same sources, oldest first; only for runs that follow one."""
    broken_keys: frozenset[str] = frozenset()
    """What ``manifest repair`` paints again."""
    largest_whole_pixels: int | None = None
    """On a CPU larger images are painted in tiles, in every style of the run; None on a GPU, which is not asked."""


def prepare(config: StylizeConfig) -> PreparedRun:
    """Check a config against the world and take possession of the run's folder.

    Raises:
        ConfigError: a model that is none, no sources, an output that cannot be written, holds something else, overlaps
            the sources, or holds this run with another fingerprint.
    """
    storage = Storage(first_look(config.storage))
    with config_errors_for("input"):
        source_root = resolve(config.input)
    with config_errors_for("out"):
        out = resolve(config.out)
    models = load_models(storage, config.model, config.registry)
    named = [(model.name, model.version, model.sha256) for model in models]
    identity = identify(config, source_root, out, named)
    _check_sources(storage, source_root)
    _check_apart(sources_root(storage, source_root), source_root, out, identity)
    _check_output(storage, out)
    history = _history(storage, config, identity, out)
    if history:
        kind: FollowUp = "retry_failed" if config.retry_failed else "incremental"
        identity = follow_up(kind, identity, history, config.run_id)
    run = PreparedRun(
        config=config,
        identity=identity,
        layout=RunLayout(out=out, run_id=identity.run_id),
        success=None,
        history=tuple(history),
    )
    return claim(storage, run, models)


def claim(storage: Storage, run: PreparedRun, models: Sequence[StyleModel]) -> PreparedRun:
    """Put a run's identity, config and models into its folder, or find them there.

    Raises:
        ConfigError: the folder cannot be written, or belongs to a run with other settings.
    """
    layout = run.layout
    with writing_output(layout.out):
        _claim_identity(storage, layout, run.identity)
        success = read_success(storage, layout)
        if success is None:
            storage.write_bytes(layout.config_uri, to_yaml(run.config).encode())
            _claim_models(storage, layout, models)
        else:
            remove_pending(storage, layout)  # left by a process that died between its commit and this
    return replace(run, success=success, largest_whole_pixels=_largest_whole_pixels(run.config, models))


def _claim_models(storage: Storage, layout: RunLayout, models: Sequence[StyleModel]) -> None:
    for model in models:
        uri = layout.model_uri(model.name)
        if storage.create_bytes(uri, to_bytes(model)):
            continue
        if load_style_model(storage, uri).sha256 != model.sha256:
            cure = "remove it, so that it is copied again, or choose another --run-id"
            raise ConfigError("model", uri, "is not the model that this run was planned with", cure)


def _largest_whole_pixels(config: StylizeConfig, models: Sequence[StyleModel]) -> int | None:
    if config.device == "cuda":
        return None
    from stylemill.nn.memory import largest_whole_pixels
    from stylemill.nn.precision import resolve_precision

    precision = resolve_precision(config.precision)
    return min(
        largest_whole_pixels(model.architecture, precision, max_memory_bytes=config.max_memory_bytes)
        for model in models
    )


def _history(storage: Storage, config: StylizeConfig, identity: RunIdentity, out: str) -> list[CommittedRun]:
    """Return the committed runs that this one follows; none for a run of its own."""
    if not (config.incremental or config.retry_failed):
        return []
    history = load_history(storage, out, identity.input)
    if config.retry_failed and not history:
        cure = "finish a run without --retry-failed first"
        raise ConfigError("retry_failed", True, f"{out} holds no committed run over this input", cure)
    return history


def load_models(storage: Storage, uris: Sequence[str], registry: str | None = None) -> list[StyleModel]:
    """Return the style models at these locations, or in the registry.

    Raises:
        ConfigError: one is missing, is no style model, cannot name a folder, or two have the same name.
    """
    models: list[StyleModel] = []
    for uri in uris:
        with (
            reading_input("model", uri, expected="a style model"),
            config_errors_for("model", keep=("registry", "style")),
        ):
            model = load_style_model(storage, locate_model(storage, uri, registry))
        if any(model.name == other.name for other in models):
            raise ConfigError("model", uri, f"is a second style named {model.name!r}", "give each style one model")
        models.append(model)
    return models


def _check_apart(root: str, source_root: str, out: str, identity: RunIdentity) -> None:
    real, layout = _real(root), RunLayout(out=_real(out), run_id=identity.run_id)
    if reaches_into(real, real + source_root.removeprefix(root), layout.out):
        raise ConfigError("out", out, "lies inside the input", "choose a location outside the sources")
    for style in identity.styles:
        if is_inside(real, layout.images_uri(style.name)):
            cure = "choose another output location"
            raise ConfigError("input", source_root, "is where this style's results go", cure)


def _real(uri: str) -> str:
    """Return a location with the symbolic links of a local path resolved."""
    return os.path.realpath(uri) if scheme(uri) == "file" else uri


def _check_sources(storage: Storage, source_root: str) -> None:
    with listing_input("input", source_root), config_errors_for("input"):
        first = next(iter(find_sources(storage, source_root)), None)
    if first is None:
        cure = "give a prefix, glob, file or Parquet file of uris that holds some"
        raise ConfigError("input", source_root, "holds no sources", cure)


def _check_output(storage: Storage, out: str) -> None:
    with listing_input("out", out):
        # Strangers are looked for by name order: before, between and after the three folders that are ours.
        for after in ("", *(f"{folder}/\U0010ffff" for folder in OWN_FOLDERS)):
            with config_errors_for("out"):
                found = next(storage.list_objects(out, after), None)
            if found is not None and found.key.split("/")[0] not in OWN_FOLDERS:
                cure = "choose an empty location, or one that an earlier run made"
                raise ConfigError("out", out, f"already holds something else ({found.key!r})", cure)


def _claim_identity(storage: Storage, layout: RunLayout, identity: RunIdentity) -> None:
    if storage.create_bytes(layout.identity_uri, identity.to_json()):
        return
    try:
        existing = RunIdentity.from_json(storage.read_bytes(layout.identity_uri))
    except (ValueError, KeyError, TypeError) as error:
        cure = f"restore {layout.identity_uri}, or choose another --run-id"
        raise ConfigError("run_id", layout.run_id, f"has a damaged run.json ({error})", cure) from None
    changes = differences(existing, identity)
    if changes:
        cure = "use the same settings to resume, or another --run-id (or none) for a new run"
        raise ConfigError("run_id", layout.run_id, f"was begun with other settings: {', '.join(changes)}", cure)
