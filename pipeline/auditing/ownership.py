"""Which objects belong to committed runs: 64-bit hashes of their locations, eight bytes for each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.auditing.check_part import hash_uri, is_in
from pipeline.manifest.history import CommittedRun
from pipeline.manifest.read import iter_parts
from pipeline.storage import ObjectStat, Storage


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
