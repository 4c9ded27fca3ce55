"""What follows a verification: repainting broken results, and finding objects that no committed run owns.

``prepare_repair`` (``manifest repair``) prepares an incremental run that paints missing and damaged results again, with
the broken run as its parent. ``find_garbage`` (``manifest gc``) lists the images that can be removed.
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
from stylemill.stylizing.incremental import incremental_identity
from stylemill.stylizing.preflight import PreparedRun, load_models, open_run


def prepare_repair(options: StorageOptions, found: Verification) -> PreparedRun:
    """Return the run that paints broken results again, with the broken run's config and models.

    Args:
        options: how to reach storage.
        found: result of ``verify``, with broken keys.

    Raises:
        ConfigError: the broken run's folder lacks its config, identity or models.
    """
    storage, parent = Storage(options), found.layout
    try:
        text = storage.read_bytes(parent.config_uri).decode()
        identity = RunIdentity.from_json(storage.read_bytes(parent.identity_uri))
    except (ObjectNotFound, ValueError, KeyError, TypeError) as error:
        cure = "restore the run's folder, or run `stylemill stylize` with another --run-id"
        raise ConfigError("uri", parent.run_uri, f"lacks files that a repair needs ({error})", cure) from None
    config = from_flags(StylizeConfig, {}, parse_yaml(text, source=parent.config_uri))
    models = load_models(storage, [parent.model_uri(style.name) for style in identity.styles])
    history = load_history(storage, parent.out, identity.input)
    broken = found.broken_keys
    identity = incremental_identity("repair", identity, history, extra=digest({"keys": sorted(broken)}))
    run = PreparedRun(
        config=config,
        identity=identity,
        layout=RunLayout(out=parent.out, run_id=identity.run_id),
        success=None,
        history=tuple(history),
        broken_keys=broken,
    )
    return open_run(storage, run, models)


@dataclass(frozen=True, kw_only=True)
class Garbage:
    """Content of an output location that does not belong to its committed runs."""

    objects: tuple[ObjectStat, ...]
    """Images that no committed row owns."""
    unfinished_runs: tuple[str, ...]
    """Runs that are not committed; ``objects`` includes their images, and deleting those would undo their work."""


def find_garbage(storage: Storage, out: str) -> Garbage:
    """Return the objects below ``OUT/images`` that no committed run owns.

    Args:
        storage: where to look.
        out: resolved output location.

    Raises:
        ConfigError: no run was ever started there, so the images belong to something else.
    """
    committed = set(committed_runs(storage, out))
    unfinished = tuple(run_id for run_id in _started_runs(storage, out) if run_id not in committed)
    if not committed and not any(
        storage.exists(RunLayout(out=out, run_id=run_id).identity_uri) for run_id in unfinished
    ):
        cure = "give the --out of `stylemill stylize`; if its runs were deleted, remove its images by hand"
        raise ConfigError("uri", out, "contains no run", cure)
    owned = owned_hashes(storage, load_history(storage, out))
    objects = tuple(unowned_objects(storage, join(out, "images"), owned))
    return Garbage(objects=objects, unfinished_runs=unfinished)


def _started_runs(storage: Storage, out: str) -> Iterator[str]:
    """Yield the runs that have a folder, listing one object of each."""
    runs_uri, after = join(out, "runs"), ""
    while (found := next(iter(storage.list_objects(runs_uri, after)), None)) is not None:
        run_id = found.key.split("/")[0]
        yield run_id
        after = f"{run_id}/\U0010ffff"
