"""``manifest repair``: an incremental run that repaints missing and damaged results of its parent run."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Collection, Sequence

from stylemill.auditing.ownership import finish_or_delete, unfinished_runs
from stylemill.auditing.verify import Verification
from stylemill.config import digest, from_flags, parse_yaml
from stylemill.errors import ConfigError, ObjectNotFound
from stylemill.manifest.layout import RunLayout
from stylemill.manifest.output import cleaning_lease_uri
from stylemill.manifest.read import CommittedRun, iter_parts, load_history
from stylemill.storage import Storage, StorageOptions
from stylemill.storage.lease import Lease, acquire
from stylemill.style_choice import load_styles
from stylemill.stylizing.config import StylizeConfig
from stylemill.stylizing.identity import RunIdentity
from stylemill.stylizing.incremental import incremental_identity
from stylemill.stylizing.preflight import PreparedRun, open_run


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
    models = load_styles(storage, [parent.model_uri(style.name) for style in identity.styles])
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
    damaged = {problem.uri for problem in found.problems if problem.kind == "ObjectChanged"}
    is_resumed = storage.exists(run.layout.identity_uri)  # it may have painted some of them, with other bytes
    if damaged and not is_resumed:
        _remove_damaged(storage, parent.out, damaged)
    return open_run(storage, run, models)


def _remove_damaged(storage: Storage, out: str, uris: Collection[str]) -> None:
    """Remove damaged objects, since a run replaces none, while no other run can begin or is unfinished.

    An object that some committed row describes stays.

    Raises:
        ConfigError: an unfinished run may have painted some of them.
        RunConflict: another process is cleaning the output.
    """
    with acquire(storage, cleaning_lease_uri(out), what="the output") as lease:
        if runs := unfinished_runs(storage, out):
            raise ConfigError("uri", out, f"the runs {', '.join(runs)} are not committed", finish_or_delete(out))
        _remove_unless_described(storage, uris, load_history(storage, out), lease)


def _remove_unless_described(
    storage: Storage, uris: Collection[str], history: Sequence[CommittedRun], lease: Lease
) -> None:
    described: defaultdict[str, set[str]] = defaultdict(set)
    for run in history:
        for table in iter_parts(storage, run.layout, run.success):
            for row in table.select(["output_uri", "output_sha256"]).to_pylist():
                if row["output_uri"] in uris:
                    described[row["output_uri"]].add(row["output_sha256"])
    for uri in uris:
        if hashlib.sha256(storage.read_bytes(uri)).hexdigest() not in described[uri]:
            lease.check()
            storage.delete(uri)
