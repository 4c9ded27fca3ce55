"""Painting again what ``verify`` found missing or damaged: a run of its own whose parent is the broken one.

Finding, and removing, objects that no committed run owns.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from stylemill.auditing.check_part import owned_hashes, unowned_objects
from stylemill.auditing.verify import Verification
from stylemill.config import digest, from_flags, parse_yaml
from stylemill.errors import ConfigError, ObjectNotFound
from stylemill.manifest.layout import RunLayout
from stylemill.manifest.read import committed_runs, load_history
from stylemill.storage import ObjectStat, Storage, StorageOptions, join
from stylemill.stylizing.config import StylizeConfig
from stylemill.stylizing.identity import RunIdentity
from stylemill.stylizing.incremental import follow_up
from stylemill.stylizing.preflight import PreparedRun, claim, load_models


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


@dataclass(frozen=True, kw_only=True)
class Garbage:
    """What an output location holds beyond its committed runs."""

    objects: tuple[ObjectStat, ...]
    """Images that no committed row owns."""
    unfinished_runs: tuple[str, ...]
    """Runs that are not committed: their images are among the objects, and deleting them would undo their work."""


def find_garbage(storage: Storage, out: str) -> Garbage:
    """Return what is not owned below ``OUT/images``.

    Args:
        storage: where to look.
        out: resolved output location.

    Raises:
        ConfigError: no run was ever begun there: its images are somebody else's.
    """
    committed = set(committed_runs(storage, out))
    unfinished = tuple(run_id for run_id in _begun_runs(storage, out) if run_id not in committed)
    if not committed and not any(storage.exists(RunLayout(out=out, run_id=one).identity_uri) for one in unfinished):
        cure = "give the OUT of `stylemill stylize`; where its runs are gone, remove its images by hand"
        raise ConfigError("uri", out, "holds no run", cure)
    owned = owned_hashes(storage, load_history(storage, out))
    objects = tuple(unowned_objects(storage, join(out, "images"), owned))
    return Garbage(objects=objects, unfinished_runs=unfinished)


def _begun_runs(storage: Storage, out: str) -> Iterator[str]:
    """Yield the runs that have a folder, looking at one object of each."""
    runs_uri, after = join(out, "runs"), ""
    while (found := next(iter(storage.list_objects(runs_uri, after)), None)) is not None:
        run_id = found.key.split("/")[0]
        yield run_id
        after = f"{run_id}/\U0010ffff"
