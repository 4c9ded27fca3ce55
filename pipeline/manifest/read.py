"""Reading committed manifests: only the parts that ``_SUCCESS`` lists, each checked against its digest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pyarrow as pa

from pipeline.errors import ConfigError, StorageError
from pipeline.manifest.commit import Success, read_success
from pipeline.manifest.layout import RunLayout
from pipeline.manifest.schema import MANIFEST_SCHEMA, from_parquet
from pipeline.storage import Storage, join
from pipeline.storage.uri import name, parent, resolve


def find_run(storage: Storage, uri: str) -> RunLayout:
    """Return the committed run that a location names.

    Args:
        storage: where to look.
        uri: a manifest folder (``OUT/manifests/RUN``), its ``_SUCCESS``, a run folder, or an output location that
            holds one committed run.

    Raises:
        ConfigError: no committed run there, or several.
    """
    uri = resolve(uri)
    if name(uri) == "_SUCCESS":
        uri = parent(uri)
    for folder in ("manifests", "runs"):
        if name(parent(uri)) == folder:
            layout = RunLayout(out=parent(parent(uri)), run_id=name(uri))
            if storage.exists(layout.success_uri):
                return layout
            raise ConfigError("uri", uri, "is not a committed run", "run the same stylize command again to finish it")
    run_ids = committed_runs(storage, uri)
    if len(run_ids) == 1:
        return RunLayout(out=uri, run_id=run_ids[0])
    if not run_ids:
        raise ConfigError(
            "uri", uri, "holds no committed manifest", "give OUT or OUT/manifests/RUN_ID of a finished run"
        )
    choices = ", ".join(join(uri, "manifests", run_id) for run_id in run_ids[:5])
    raise ConfigError("uri", uri, f"holds {len(run_ids)} committed runs", f"give one of {choices}")


def committed_runs(storage: Storage, out: str) -> list[str]:
    """Return the ids of the committed runs of an output location, in order of id."""
    found = (item.key for item in storage.list_objects(join(out, "manifests")))
    return sorted(key.split("/")[0] for key in found if key.count("/") == 1 and key.endswith("/_SUCCESS"))


def load_success(storage: Storage, layout: RunLayout) -> Success:
    """Return a committed run's ``_SUCCESS``.

    Raises:
        ConfigError: the run is not committed.
    """
    success = read_success(storage, layout)
    if success is None:
        cure = "run the same stylize command again to finish it"
        raise ConfigError("run_id", layout.run_id, "is not committed", cure)
    return success


def iter_parts(storage: Storage, layout: RunLayout, success: Success) -> Iterator[pa.Table]:
    """Yield the rows of each committed part as a table of MANIFEST_SCHEMA.

    Raises:
        StorageError: a part is missing or is not the one that was committed.
    """
    for part in success.parts:
        uri = join(layout.manifest_uri, part.name)
        data = storage.read_bytes(uri)
        if hashlib.sha256(data).hexdigest() != part.sha256:
            raise StorageError(f"{uri} is not the part that was committed (its SHA-256 differs); restore it")
        yield from_parquet(data, MANIFEST_SCHEMA)


def read_manifest(storage: Storage, layout: RunLayout) -> pa.Table:
    """Return all rows of a committed run as one table of MANIFEST_SCHEMA."""
    tables = list(iter_parts(storage, layout, load_success(storage, layout)))
    return pa.concat_tables(tables) if tables else MANIFEST_SCHEMA.empty_table()
