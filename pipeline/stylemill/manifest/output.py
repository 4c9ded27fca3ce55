"""What the runs of one output location share: who writes which tree of images, and the order of their commits.

Runs never replace each other's objects (``stylizing/write.py``). So that different settings or sources do not mix their
results in one folder either, the first *lineage* (one input, one fingerprint) that paints a style gets
``images/STYLE``, and every other one ``images/STYLE~LINEAGE``. Conditional creates decide, never clocks.
"""

from __future__ import annotations

import json
import secrets

from stylemill.errors import ConfigError, StorageError
from stylemill.storage import Storage, join
from stylemill.storage.uri import name

LINEAGE_LETTERS = 8
"""Letters of the lineage in the name of a tree."""


def claim_tree(storage: Storage, out: str, style: str, lineage: str, input_uri: str) -> str:
    """Return the folder below ``images/`` that a lineage of one style writes; the first caller gets the style's name.

    Args:
        storage: where the output is.
        out: resolved output location.
        style: name of the style.
        lineage: hash of input and fingerprint.
        input_uri: location of the sources, for people who read the claim.

    Raises:
        StorageError: the claim is damaged, or storage failed beyond its retries.
    """
    uri = _tree_uri(out, style)
    claim = {"lineage": lineage, "input": input_uri}
    if storage.create_bytes(uri, json.dumps(claim, indent=1).encode()) or _owner(storage, uri) == lineage:
        return style
    return f"{style}~{lineage[:LINEAGE_LETTERS]}"


def is_claimed(storage: Storage, out: str, style: str) -> bool:
    """Return whether some lineage owns the folder that has the style's name."""
    return storage.exists(_tree_uri(out, style))


def release_trees(storage: Storage, out: str, used: set[str]) -> None:
    """Remove the claims on trees that no run writes any more.

    Args:
        storage: where the output is.
        out: resolved output location.
        used: folders below ``images/`` of all runs that have a manifest or a folder.
    """
    for found in storage.list_objects(join(out, "state", "trees")):
        if found.key.removesuffix(".json") not in used:
            storage.delete(found.uri)


def _tree_uri(out: str, style: str) -> str:
    return join(out, "state", "trees", f"{style}.json")


def _owner(storage: Storage, uri: str) -> str:
    try:
        return str(json.loads(storage.read_bytes(uri))["lineage"])
    except (ValueError, KeyError, TypeError) as error:
        raise StorageError(f"{uri} is damaged ({error}); remove it if no run of this output is in progress") from None


def next_sequence(storage: Storage, out: str, run_id: str) -> int:
    """Reserve and return the next number in the order of commits; numbers of runs that then die are left out.

    Args:
        storage: where the output is.
        out: resolved output location.
        run_id: the run that is about to be committed.
    """
    folder = join(out, "state", "sequence")
    number = max((int(found.key.removesuffix(".json")) for found in storage.list_objects(folder)), default=0) + 1
    content = json.dumps({"run_id": run_id, "nonce": secrets.token_hex(8)}).encode()
    while not storage.create_bytes(join(folder, f"{number:08d}.json"), content):
        number += 1
    return number


def cleaning_lease_uri(out: str) -> str:
    """Return the prefix of the lease that ``manifest gc --delete`` holds; no run begins meanwhile."""
    return join(out, "state", "cleaning")


def check_conditional_create(storage: Storage, out: str) -> None:
    """Create one object twice: everything that runs promise depends on the second attempt's failure.

    Raises:
        ConfigError: the store let both pass.
        StorageError: storage failed beyond its retries.
    """
    uri = join(out, "state", f"probe-{secrets.token_hex(8)}")
    created = [storage.create_bytes(uri, content) for content in (b"first", b"second")]
    storage.delete(uri)
    if created != [True, False]:
        cure = "use a store that honours If-None-Match (AWS S3, GCS, Azure Blob, MinIO, Ceph, R2) or a file system"
        problem = f"lets two processes create the same object ({name(uri)})"
        raise ConfigError("out", out, problem, cure)
