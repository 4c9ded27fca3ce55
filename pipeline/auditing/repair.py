"""Painting again what ``verify`` found missing or damaged: a run of its own whose parent is the broken one."""

from __future__ import annotations

from pipeline.auditing.verify import Verification
from pipeline.config import digest, from_flags, parse_yaml
from pipeline.errors import ConfigError, ObjectNotFound
from pipeline.manifest.history import load_history
from pipeline.manifest.layout import RunLayout
from pipeline.storage import Storage, StorageOptions
from pipeline.stylizing.config import StylizeConfig
from pipeline.stylizing.follow_up import follow_up
from pipeline.stylizing.identity import RunIdentity
from pipeline.stylizing.preflight import PreparedRun, claim, load_models


def prepare_repair(options: StorageOptions, found: Verification) -> PreparedRun:
    """Return the run that repairs what was found, with the broken run's own config and models.

    Args:
        options: how to reach storage.
        found: what ``verify`` found; must hold broken keys.

    Raises:
        ConfigError: the broken run's folder lacks its config, identity or models.
    """
    storage, parent = Storage(options), found.layout
    try:
        text = storage.read_bytes(parent.config_uri).decode()
        identity = RunIdentity.from_json(storage.read_bytes(parent.identity_uri))
    except (ObjectNotFound, ValueError, KeyError, TypeError) as error:
        cure = "restore the run's folder, or paint again with stylize under another --run-id"
        raise ConfigError("uri", parent.run_uri, f"lacks what a repair needs ({error})", cure) from None
    config = from_flags(StylizeConfig, {}, parse_yaml(text, source=parent.config_uri))
    models = load_models(storage, [parent.model_uri(style.name) for style in identity.styles])
    history = load_history(storage, parent.out, identity.input)
    broken = found.broken_keys
    identity = follow_up("repair", identity, history, extra=digest({"keys": sorted(broken)}))
    run = PreparedRun(
        config=config,
        identity=identity,
        layout=RunLayout(out=parent.out, run_id=identity.run_id),
        success=None,
        history=tuple(history),
        broken_keys=broken,
    )
    return claim(storage, run, models)
