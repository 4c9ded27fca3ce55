"""Which objects belong to committed runs, and which to none (``manifest gc``).

Locations are compared by 64-bit hashes of eight bytes each, so that 10^8 of them fit into memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stylemill.errors import ConfigError
from stylemill.manifest.layout import RunLayout
from stylemill.manifest.read import CommittedRun, committed_runs, iter_parts, load_history
from stylemill.storage import ObjectStat, Storage, join


def hash_uri(uri: str) -> int:
    """Return 64 bits of a location's BLAKE2 digest."""
    return int.from_bytes(hashlib.blake2b(uri.encode(), digest_size=8).digest(), "little")


def is_in(hashes: NDArray[np.uint64], known: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Return for each hash whether it is among the sorted ``known`` ones."""
    if not len(known):
        return np.zeros(len(hashes), np.bool_)
    positions = np.minimum(np.searchsorted(known, hashes), len(known) - 1)
    return known[positions] == hashes


def owned_hashes(storage: Storage, runs: Sequence[CommittedRun]) -> NDArray[np.uint64]:
    """Return the sorted, distinct hashes of the locations that rows of these runs own."""
    hashes = [np.empty(0, np.uint64)]
    for run in runs:
        for table in iter_parts(storage, run.layout, run.success):
            uris = table.column("output_uri").drop_null().to_pylist()
            hashes.append(np.array([hash_uri(uri) for uri in uris], np.uint64))
    return np.unique(np.concatenate(hashes))


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
