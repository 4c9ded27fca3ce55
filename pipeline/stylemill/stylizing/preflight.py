"""Checks before Ray starts, and creation of the run's folder.

``prepare`` checks input, models and output, stores the identity, config and models of a run in its folder, and returns
a ``PreparedRun``. For a run that exists already it checks that the settings are the same. Every mistake of the user
that can be found without Ray is found here, as a ConfigError.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Literal

from stylemill.config import to_yaml
from stylemill.errors import ConfigError, config_errors_for
from stylemill.manifest.commit import Success, read_success, remove_pending
from stylemill.manifest.layout import RunLayout
from stylemill.manifest.output import check_conditional_create
from stylemill.manifest.read import CommittedRun, load_history
from stylemill.storage import ObjectStat, Storage, resolve
from stylemill.storage.options import preflight_options
from stylemill.storage.sources import find_sources, input_covers, sources_root
from stylemill.storage.uri import is_glob, is_inside, real_location, scheme, shown
from stylemill.storage.user_errors import listing_input, writing_output
from stylemill.style_choice import load_styles
from stylemill.style_model import StyleModel, load_style_model, to_bytes
from stylemill.stylizing.config import StylizeConfig
from stylemill.stylizing.identity import IncrementalKind, RunIdentity, claim_trees, differences, identify
from stylemill.stylizing.incremental import incremental_identity
from stylemill.stylizing.looks import check_folder_looks, library_looks

Runner = Literal["ray", "local"]
"""What runs the workers: see ``StylizeConfig.runner``."""
MAX_LOCAL_SOURCES = 500
"""Sources up to which ``runner: auto`` needs no Ray: some minutes of work for this machine alone."""
MAX_COUNTED_OBJECTS = 10_000
"""Objects of a listing that are looked at for the few that a glob matches."""
OWN_FOLDERS = ("images", "manifests", "runs", "state")
"""Folders that runs create in an output location."""


@dataclass(frozen=True, kw_only=True)
class PreparedRun:
    """A checked run whose identity, config and models are stored in its folder."""

    config: StylizeConfig
    identity: RunIdentity
    layout: RunLayout
    success: Success | None
    """Set if the run is committed already: there is nothing to do."""
    history: tuple[CommittedRun, ...] = ()
    """Committed runs over the same sources, oldest first; only for incremental runs."""
    broken_keys: frozenset[str] = frozenset()
    """Sources that ``manifest repair`` paints again."""
    runner: Runner = "ray"
    """What runs the workers."""
    largest_whole_pixels: int | None = None
    """On a CPU, larger images are painted in tiles in every style of the run; None on a GPU."""


def prepare(config: StylizeConfig) -> PreparedRun:
    """Check a config against storage and create or open the run's folder.

    Raises:
        ConfigError: as ``check``, or the output cannot be written.
    """
    run, models = check(config, may_write=True)
    return open_run(Storage(preflight_options(config.storage)), run, models)


def check(config: StylizeConfig, *, may_write: bool = False) -> tuple[PreparedRun, list[StyleModel]]:
    """Check a config against storage.

    Args:
        config: of the run.
        may_write: keep the look of the library in the output (``--look library``); otherwise nothing is written.

    Returns:
        the run, committed or not, whose folder may not exist yet, and its models.

    Raises:
        ConfigError: a model is not a style model; there are no sources; or the output contains
            other files, overlaps the sources, or contains this run with another fingerprint.
    """
    storage = Storage(preflight_options(config.storage))
    with config_errors_for("input"):
        source_root = resolve(config.input)
    with config_errors_for("out"):
        out = resolve(config.out)
    models = load_styles(storage, config.model, config.registry, config.style)
    identity = identify(config, source_root, out, _identities(models))
    _check_sources(storage, source_root, identity.style_rule.column)
    _check_apart(sources_root(storage, source_root), source_root, out, identity)
    _check_output(storage, out)
    if config.look == "folder":
        with listing_input("input", source_root):
            check_folder_looks(storage, source_root, models)
    if config.look == "library":
        models = library_looks(storage, config, source_root, out, models, may_write=may_write)
        identity = identify(config, source_root, out, _identities(models))
    history = _history(storage, config, identity, out)
    if history:
        kind: IncrementalKind = "retry_failed" if config.retry_failed else "incremental"
        identity = incremental_identity(kind, identity, history, config.run_id)
    layout = RunLayout(out=out, run_id=identity.run_id)
    success = None
    with writing_output(layout.out):
        if storage.exists(layout.identity_uri):
            identity, success = _stored_identity(storage, layout, identity), read_success(storage, layout)
    run = PreparedRun(
        config=config,
        identity=identity,
        layout=layout,
        success=success,
        history=tuple(history),
        runner=_choose_runner(storage, config, source_root),
    )
    return run, models


def _identities(models: Sequence[StyleModel]) -> list[tuple[str, str, str]]:
    return [(model.name, model.version, model.sha256) for model in models]


def open_run(storage: Storage, run: PreparedRun, models: Sequence[StyleModel]) -> PreparedRun:
    """Store a run's identity, config and models in its folder, or check that the folder contains them.

    Raises:
        ConfigError: the folder cannot be written, or belongs to a run with other settings or models.
    """
    layout = run.layout
    with writing_output(layout.out):
        identity = _store_identity(storage, layout, run.identity)
        success = read_success(storage, layout)
        if success is None:
            storage.write_bytes(layout.config_uri, to_yaml(run.config).encode())
            _store_models(storage, layout, models)
        else:
            remove_pending(storage, layout)  # left by a process that died after its commit
    return replace(
        run, identity=identity, success=success, largest_whole_pixels=_largest_whole_pixels(run.config, models)
    )


def _store_models(storage: Storage, layout: RunLayout, models: Sequence[StyleModel]) -> None:
    for model in models:
        uri = layout.model_uri(model.name)
        if storage.create_bytes(uri, to_bytes(model)):
            continue
        if load_style_model(storage, uri).sha256 != model.sha256:
            cure = "remove it, so that it is copied again, or choose another --run-id"
            raise ConfigError("model", uri, "is not the model that this run was planned with", cure)


def _largest_whole_pixels(config: StylizeConfig, models: Sequence[StyleModel]) -> int | None:
    if config.paint.device == "cuda":
        return None
    from stylemill.nn.memory import largest_whole_pixels
    from stylemill.nn.precision import resolve_precision

    precision = resolve_precision(config.paint.precision)
    return min(
        largest_whole_pixels(model.architecture, precision, max_memory_bytes=config.paint.max_memory_bytes)
        for model in models
    )


def _history(storage: Storage, config: StylizeConfig, identity: RunIdentity, out: str) -> list[CommittedRun]:
    """Return the committed runs over the same sources; an empty list if the run is not incremental."""
    if not (config.incremental or config.retry_failed):
        return []
    history = load_history(storage, out, identity.input)
    if config.retry_failed and not history:
        cure = "finish a run without --retry-failed first"
        raise ConfigError("retry_failed", True, f"{out} contains no committed run over this input", cure)
    return history


def _check_apart(root: str, source_root: str, out: str, identity: RunIdentity) -> None:
    real, layout = real_location(root), RunLayout(out=real_location(out), run_id=identity.run_id)
    if input_covers(real, real + source_root.removeprefix(root), layout.out):
        raise ConfigError("out", out, "is inside the input", "choose a location outside the sources")
    for style in identity.styles:
        tree = layout.images_uri(style.name)
        if is_inside(real, tree) or real.startswith(f"{tree}~"):
            problem = f"is inside the folder of the results of style {style.name!r}"
            raise ConfigError("input", source_root, problem, "choose another output location")


def _choose_runner(storage: Storage, config: StylizeConfig, source_root: str) -> Runner:
    if config.runner != "auto" or not config.may_run_locally:
        return "local" if config.may_run_locally else "ray"
    with listing_input("input", source_root), config_errors_for("input"):
        if is_glob(source_root):  # in a large library it may match little, and only the whole listing would tell
            listing = storage.list_objects(sources_root(storage, source_root), with_denied=True)
            if _has_more(listing, MAX_COUNTED_OBJECTS):
                return "ray"
        return "ray" if _has_more(find_sources(storage, source_root), MAX_LOCAL_SOURCES) else "local"


def _has_more(found: Iterator[ObjectStat], limit: int) -> bool:
    return next(islice(found, limit, None), None) is not None


def _check_sources(storage: Storage, source_root: str, column: str | None) -> None:
    with listing_input("input", source_root), config_errors_for("input"):
        first = next(iter(find_sources(storage, source_root, column=column)), None)
    if first is None:
        cure = "give a prefix, glob, file or list of locations that contains some"
        raise ConfigError("input", source_root, "contains no sources", cure)


def _check_output(storage: Storage, out: str) -> None:
    if scheme(out) in ("http", "https"):
        raise ConfigError("out", shown(out), "cannot be written over http", "give a folder or a prefix of a bucket")
    with listing_input("out", out):
        # Look for other objects before, between and after the own folders, in order of key.
        for after in ("", *(f"{folder}/\U0010ffff" for folder in OWN_FOLDERS)):
            with config_errors_for("out"):
                found = next(storage.list_objects(out, after), None)
            if found is not None and found.key.split("/")[0] not in OWN_FOLDERS:
                cure = "choose an empty location or the output of an earlier run"
                raise ConfigError("out", out, f"contains files of something else ({found.key!r})", cure)


def _store_identity(storage: Storage, layout: RunLayout, identity: RunIdentity) -> RunIdentity:
    """Return the run's identity as it is stored: a run that exists keeps its trees."""
    if not storage.exists(layout.identity_uri):
        check_conditional_create(storage, layout.out)
        identity = claim_trees(storage, layout.out, identity)
        if storage.create_bytes(layout.identity_uri, identity.to_json()):
            return identity
    return _stored_identity(storage, layout, identity)


def _stored_identity(storage: Storage, layout: RunLayout, identity: RunIdentity) -> RunIdentity:
    """Return the identity of a run that exists; raise ConfigError if it has other settings."""
    try:
        existing = RunIdentity.from_json(storage.read_bytes(layout.identity_uri))
    except (ValueError, KeyError, TypeError) as error:
        cure = f"restore {layout.identity_uri}, or choose another --run-id"
        raise ConfigError("run_id", layout.run_id, f"has a damaged run.json ({error})", cure) from None
    changes = differences(existing, identity)
    if changes:
        cure = "use the same settings to resume, or another --run-id (or none) for a new run"
        raise ConfigError("run_id", layout.run_id, f"was started with other settings: {', '.join(changes)}", cure)
    return existing
