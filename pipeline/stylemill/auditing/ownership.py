"""Which objects belong to committed runs, and which to none (``manifest gc``); which rows later runs superseded.

Locations and rows are compared by 64-bit hashes of eight bytes each, so that 10^8 of them fit into memory.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stylemill.errors import ConfigError, ObjectNotFound, StorageError
from stylemill.manifest.commit import iter_shards
from stylemill.manifest.layout import RunLayout
from stylemill.manifest.output import cleaning_lease_uri, release_trees
from stylemill.manifest.read import CommittedRun, committed_runs, iter_parts, load_history
from stylemill.storage import ObjectStat, Storage, join
from stylemill.storage.lease import DEAD_AFTER_S, acquire, is_held
from stylemill.stylizing.identity import RunIdentity


def hash_uri(uri: str) -> int:
    """Return 64 bits of a location's BLAKE2 digest, equal for names that some file system takes for the same.

    File systems may fold case or normalise Unicode: a file may be listed under another spelling than its row has, and
    must not count as unowned.
    """
    return _hash(unicodedata.normalize("NFC", unicodedata.normalize("NFC", uri).casefold()))


def hash_row(style: str, key: str) -> int:
    """Return 64 bits of the BLAKE2 digest of a row's style and key."""
    return _hash(f"{style}\0{key}")


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def is_in(hashes: NDArray[np.uint64], known: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Return for each hash whether it is among the sorted ``known`` ones."""
    if not len(known):
        return np.zeros(len(hashes), np.bool_)
    positions = np.minimum(np.searchsorted(known, hashes), len(known) - 1)
    return known[positions] == hashes


def owned_hashes(storage: Storage, runs: Sequence[CommittedRun]) -> NDArray[np.uint64]:
    """Return the sorted, distinct hashes of the locations that rows of these runs own."""
    return _distinct(
        [hash_uri(uri) for uri in table.column("output_uri").drop_null().to_pylist()] for table in _parts(storage, runs)
    )


def superseding_hashes(storage: Storage, runs: Sequence[CommittedRun]) -> NDArray[np.uint64]:
    """Return the sorted, distinct hashes of style and key of all rows of these runs."""
    return _distinct(
        [hash_row(row["style"], row["key"]) for row in table.select(["style", "key"]).to_pylist()]
        for table in _parts(storage, runs)
    )


def _parts(storage: Storage, runs: Sequence[CommittedRun]) -> Iterator[pa.Table]:
    for run in runs:
        yield from iter_parts(storage, run.layout, run.success)


def _distinct(hashes: Iterable[list[int]]) -> NDArray[np.uint64]:
    return np.unique(np.concatenate([np.empty(0, np.uint64), *(np.array(some, np.uint64) for some in hashes)]))


def unowned_objects(storage: Storage, prefix_uri: str, owned: NDArray[np.uint64]) -> Iterator[ObjectStat]:
    """Yield the objects below a prefix whose locations are not among the sorted ``owned`` hashes."""
    for found in storage.list_objects(prefix_uri):
        if not is_in(np.array([hash_uri(found.uri)], np.uint64), owned)[0]:
            yield found


@dataclass(frozen=True, kw_only=True)
class Garbage:
    """Content of an output location that does not belong to its committed runs."""

    objects: tuple[ObjectStat, ...]
    """Images that no committed row owns."""
    unfinished_runs: tuple[str, ...]
    """Runs that are not committed; ``objects`` includes their images, and deleting those would undo their work."""
    trees: frozenset[str]
    """Folders below ``images/`` that runs wrote or may write."""


def find_garbage(storage: Storage, out: str) -> Garbage:
    """Return the objects below ``OUT/images`` that no committed run owns.

    Args:
        storage: where to look.
        out: resolved output location.

    Raises:
        ConfigError: no run was ever started there, so the images belong to something else.
    """
    _check_has_runs(storage, out)
    unfinished = unfinished_runs(storage, out)
    history = load_history(storage, out)
    objects = tuple(unowned_objects(storage, join(out, "images"), owned_hashes(storage, history)))
    trees = {tree for run in history for tree in run.success.trees}
    trees |= {style.folder for identity in _identities(storage, out) for style in identity.styles}
    return Garbage(objects=objects, unfinished_runs=unfinished, trees=frozenset(trees))


def _identities(storage: Storage, out: str) -> Iterator[RunIdentity]:
    for run_id in _run_folders(storage, out):
        layout = RunLayout(out=out, run_id=run_id)
        try:
            yield RunIdentity.from_json(storage.read_bytes(layout.identity_uri))
        except ObjectNotFound:
            continue
        except (ValueError, KeyError, TypeError) as error:
            cure = f"restore it, or delete {layout.run_uri}"
            raise StorageError(f"{layout.identity_uri} is damaged ({error}); {cure}") from None


def _check_has_runs(storage: Storage, out: str) -> None:
    layouts = (RunLayout(out=out, run_id=run_id) for run_id in _run_folders(storage, out))
    if not committed_runs(storage, out) and not any(storage.exists(layout.identity_uri) for layout in layouts):
        cure = "give the --out of `stylemill stylize`; if its runs were deleted, remove its images by hand"
        raise ConfigError("uri", out, "contains no run", cure)


def unfinished_runs(storage: Storage, out: str) -> tuple[str, ...]:
    """Return the ids of the runs that own images without being committed, or may begin to paint some.

    A run that found nothing to do leaves a folder without a plan; it counts only while a process holds it.
    """
    committed, found = set(committed_runs(storage, out)), []
    for run_id in _run_folders(storage, out):
        layout = RunLayout(out=out, run_id=run_id)
        if run_id in committed or not storage.exists(layout.identity_uri):
            continue
        if next(iter_shards(storage, layout), None) is not None or is_held(storage, layout.lease_uri):
            found.append(run_id)
    return tuple(found)


def finish_or_delete(out: str) -> str:
    """Return the cure for runs of an output that are unfinished."""
    return f"finish them by running their commands again, or delete their folders under {out}/runs"


def _run_folders(storage: Storage, out: str) -> Iterator[str]:
    """Yield the names of the folders of runs, listing one object of each."""
    runs_uri, after = join(out, "runs"), ""
    while (found := next(iter(storage.list_objects(runs_uri, after)), None)) is not None:
        run_id = found.key.split("/")[0]
        yield run_id
        after = f"{run_id}/\U0010ffff"


def delete_garbage(storage: Storage, out: str, on_deleted: Callable[[ObjectStat], None]) -> Garbage:
    """Delete the objects that no committed run owns, while no run can begin.

    Each object is looked at again before it goes: one that was written since it was listed stays.

    Args:
        storage: where to look.
        out: resolved output location.
        on_deleted: called with each object.

    Returns:
        What was found; nothing is deleted if there are unfinished runs.

    Raises:
        ConfigError: no run was ever started there.
        RunConflict: another process is cleaning the output, or a run took it over because this process was silent.
    """
    _check_has_runs(storage, out)  # before a lease is written there
    # A process that is cut off from the store counts as dead after DEAD_AFTER_S; its requests must have ended by then.
    hasty = Storage(replace(storage.options, retry_deadline_s=DEAD_AFTER_S / 6, timeout_s=DEAD_AFTER_S / 6))
    with acquire(storage, cleaning_lease_uri(out), what="the output") as lease:
        garbage = find_garbage(storage, out)  # after the lease: a run that begins now finds it and waits
        if garbage.unfinished_runs:
            return garbage
        for found in garbage.objects:
            if _is_unchanged(hasty, found):
                lease.check()
                hasty.delete(found.uri)
                on_deleted(found)
        release_trees(storage, out, set(garbage.trees))
        return garbage


def _is_unchanged(storage: Storage, listed: ObjectStat) -> bool:
    try:
        return storage.stat(listed.uri).etag == listed.etag
    except ObjectNotFound:
        return False
