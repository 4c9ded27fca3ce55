"""The one seam to storage: whole objects in and out, by location, with the one layer of retries."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Protocol, TypeVar

from stylemill.errors import ObjectNotFound
from stylemill.storage.options import StorageOptions
from stylemill.storage.retry import Limiter, TransientError, with_retries
from stylemill.storage.store import ObjectStat
from stylemill.storage.uri import resolve, scheme

ResultT = TypeVar("ResultT")

DELETED_AT_ONCE = 1000
"""The most objects that S3 deletes in one request."""


class Store(Protocol):
    """What each kind of store can do; operations raise TransientError where a repeat may help."""

    def read(self, path: str) -> bytes: ...
    def read_head(self, path: str, size_bytes: int) -> bytes: ...
    def write(self, path: str, data: bytes, *, durable: bool = False) -> None: ...
    def create(self, path: str, data: bytes) -> bool: ...
    def stat(self, path: str) -> ObjectStat: ...
    def list_objects(self, root: str, after: str = "") -> Iterator[ObjectStat]: ...
    def delete(self, path: str) -> None: ...
    def delete_all(self, paths: Sequence[str]) -> None: ...
    def remove_leftovers(self, root: str, older_than_s: float) -> None: ...


class Storage:
    """Objects by location. Cheap to build and to pickle: connections are opened by the process that needs them.

    Every method raises ``ObjectNotFound``, ``AccessDenied``, ``PathConflict``, or ``StorageError`` once the retries
    are used up.

    Args:
        options: endpoint, region, profile and bounds.
    """

    def __init__(self, options: StorageOptions | None = None) -> None:
        self.options = options or StorageOptions()
        self._stores: dict[str, Store] = {}
        self._limiter = Limiter()

    def __reduce__(self) -> tuple[type[Storage], tuple[StorageOptions]]:
        return Storage, (self.options,)

    def read_bytes(self, uri: str) -> bytes:
        """Return the whole content of an object."""
        store, path = self._locate(uri)
        return self._retried(lambda: store.read(path), f"reading {path}")

    def read_head(self, uri: str, size_bytes: int) -> bytes:
        """Return at most the first ``size_bytes`` of an object."""
        store, path = self._locate(uri)
        return self._retried(lambda: store.read_head(path, size_bytes), f"reading {path}")

    def write_bytes(self, uri: str, data: bytes, *, durable: bool = False) -> None:
        """Replace an object in one step: it is never seen in part.

        Args:
            uri: where.
            data: the whole content.
            durable: also force it to the disk of a local file system before returning.
        """
        store, path = self._locate(uri)
        self._retried(lambda: store.write(path, data, durable=durable), f"writing {path}")

    def create_bytes(self, uri: str, data: bytes) -> bool:
        """Write an object unless one exists there; tell whether this call's content stands there now.

        A create whose answer was lost is settled by reading: equal content counts as written.
        """
        store, path = self._locate(uri)
        doubtful = False

        def create() -> bool:
            nonlocal doubtful
            try:
                created = store.create(path, data)
            except TransientError:
                doubtful = True
                raise
            return created or (doubtful and store.read(path) == data)

        return self._retried(create, f"creating {path}")

    def stat(self, uri: str) -> ObjectStat:
        """Return size and etag of an object."""
        store, path = self._locate(uri)
        return self._retried(lambda: store.stat(path), f"looking at {path}")

    def exists(self, uri: str) -> bool:
        """Tell whether there is an object at a location."""
        try:
            self.stat(uri)
        except ObjectNotFound:
            return False
        return True

    def list_objects(self, prefix_uri: str, after: str = "") -> Iterator[ObjectStat]:
        """Yield the objects below a prefix in order of key; a fault continues the listing after the last key.

        Args:
            prefix_uri: the prefix or directory; keys are relative to it.
            after: yield keys greater than this one.
        """
        store, root = self._locate(prefix_uri)
        listing = store.list_objects(root, after)
        last = after

        def advance() -> ObjectStat | None:
            nonlocal listing
            try:
                return next(listing, None)
            except TransientError:
                listing = store.list_objects(root, last)
                raise

        # Not limited: a listing is one request after another, each for many keys.
        deadline_s = self.options.retry_deadline_s
        while (found := with_retries(advance, what=f"listing {root}", deadline_s=deadline_s)) is not None:
            last = found.key
            yield found

    def delete(self, uri: str) -> None:
        """Remove an object; one that is gone already is fine."""
        store, path = self._locate(uri)
        self._retried(lambda: store.delete(path), f"deleting {path}")

    def delete_all(self, uris: Iterable[str]) -> None:
        """Remove many objects of one store, with one request for each thousand where it has such a request."""
        waiting = iter(uris)
        while some := list(islice(waiting, DELETED_AT_ONCE)):
            store = self._locate(some[0])[0]
            paths = [self._locate(uri)[1] for uri in some]
            self._retried(partial(store.delete_all, paths), f"deleting {len(paths)} objects, {paths[0]} the first")

    def remove_leftovers(self, prefix_uri: str, *, older_than_s: float = 0.0) -> None:
        """Remove what killed processes left half-written below a prefix, and its empty directories.

        Object stores show neither, so nothing happens there.

        Args:
            prefix_uri: whose objects nobody is writing just now, or ``older_than_s`` keeps those out.
            older_than_s: age, by the time of the last change, from which something is a leftover.
        """
        store, root = self._locate(prefix_uri)
        self._retried(lambda: store.remove_leftovers(root, older_than_s), f"tidying up {root}")

    def _retried(self, operation: Callable[[], ResultT], what: str) -> ResultT:
        limited = partial(self._limiter.run, operation)
        return with_retries(limited, what=what, deadline_s=self.options.retry_deadline_s)

    def _locate(self, uri: str) -> tuple[Store, str]:
        path = resolve(uri)
        protocol = scheme(path)
        if protocol not in self._stores:
            self._stores[protocol] = _open_store(protocol, self.options)
        return self._stores[protocol], path


def _open_store(protocol: str, options: StorageOptions) -> Store:
    if protocol == "file":
        from stylemill.storage.local import LocalStore

        return LocalStore()
    if protocol in ("s3", "s3a"):
        from stylemill.storage.s3 import S3Store

        return S3Store(options)
    from stylemill.storage.generic import FsspecStore

    return FsspecStore(protocol)
