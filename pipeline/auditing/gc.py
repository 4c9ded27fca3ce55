"""Finding, and removing, objects that no committed run owns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.auditing.ownership import owned_hashes, unowned_objects
from pipeline.errors import ConfigError
from pipeline.manifest.history import load_history
from pipeline.manifest.layout import RunLayout
from pipeline.manifest.read import committed_runs
from pipeline.storage import ObjectStat, Storage, join


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
