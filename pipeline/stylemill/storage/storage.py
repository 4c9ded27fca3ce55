"""Whole objects in and out, by location: the only way in which the library reaches storage.

``Storage`` picks the store by the scheme of a location, limits the requests in flight and retries transient faults;
nothing below or above it retries. Contents are always whole: no append, no partial write.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import BinaryIO, TypeVar

from stylemill.errors import AccessDenied, ObjectNotFound, StorageError
from stylemill.storage.options import StorageOptions
from stylemill.storage.retry import Limiter, TransientError, with_retries
from stylemill.storage.store import ObjectStat, Store
from stylemill.storage.uri import resolve, scheme, shown

ResultT = TypeVar("ResultT")

COPIED_AT_ONCE = 16 * 2**20
"""Bytes per request of ``copy_to``."""
DELETED_AT_ONCE = 1000
"""Objects per request: the most that S3 accepts."""


class Storage:
    """Objects by location. Cheap to build and to pickle: each process opens its own connections when it needs them.

    Every method raises ``ObjectNotFound``, ``AccessDenied`` or ``PathConflict``, and ``StorageError`` when the retries
    are used up; for locations of the web also ``RedirectLoop`` and ``Unreachable``.

    Args:
        options: endpoint, region, profile and time limits.
        web_witnesses: locations of the web that may be asked whether the network works; another process does not get
            them.
    """

    def __init__(
        self, options: StorageOptions | None = None, *, web_witnesses: Callable[[], Iterable[str]] = tuple
    ) -> None:
        self.options = options or StorageOptions()
        self._web_witnesses = web_witnesses
        self._stores: dict[str, Store] = {}
        self._limiter = Limiter()

    def __reduce__(self) -> tuple[type[Storage], tuple[StorageOptions]]:
        return Storage, (self.options,)

    def read_bytes(self, uri: str) -> bytes:
        """Return the whole content of an object."""
        store, path = self._locate(uri)
        return self._retried(lambda: store.read(path), f"reading {shown(path)}")

    def read_head(self, uri: str, size_bytes: int) -> bytes:
        """Return at most the first ``size_bytes`` of an object."""
        store, path = self._locate(uri)
        return self._retried(lambda: store.read_range(path, 0, size_bytes), f"reading {shown(path)}")

    def copy_to(self, uri: str, copy: Path) -> None:
        """Copy an object to a file of this machine, with a part of ``COPIED_AT_ONCE`` in memory at a time.

        Raises:
            StorageError: the object was replaced meanwhile, or did not come as a whole.
            OSError: the file cannot be written.
        """
        store, path = self._locate(uri)
        before = self.stat(uri)
        with copy.open("wb") as file:
            if scheme(path) in ("http", "https"):
                while not self._retried(partial(self._copy_some, path, file), f"reading {shown(path)}"):
                    pass
            else:
                while file.tell() < before.size_bytes:
                    read = partial(store.read_range, path, file.tell(), COPIED_AT_ONCE)
                    data = self._retried(read, f"reading {path}")
                    if not data:
                        break
                    file.write(data)
            size_bytes = file.tell()
        if self.stat(uri) != before:
            raise StorageError(f"{shown(path)} was replaced while it was read; run the same command again")
        if before.size_bytes and size_bytes != before.size_bytes:
            problem = f"{size_bytes:,} of {before.size_bytes:,} bytes came"
            raise StorageError(f"{shown(path)}: {problem}; run the same command again")

    def _copy_some(self, path: str, file: BinaryIO) -> bool:
        """Copy what a host sends from the end of a file on, into it; return whether that was all."""
        from stylemill.storage.http import HttpStore

        store = self._locate(path)[0]
        assert isinstance(store, HttpStore)
        return store.copy_some(path, file, COPIED_AT_ONCE)

    def write_bytes(self, uri: str, data: bytes, *, durable: bool = False) -> None:
        """Replace an object in one step: readers never see a part of it.

        Args:
            uri: location of the object.
            data: the whole content.
            durable: also force it to the disk of a local file system before returning.
        """
        store, path = self._locate(uri)
        self._retried(lambda: store.write(path, data, durable=durable), f"writing {shown(path)}")

    def create_bytes(self, uri: str, data: bytes, *, durable: bool = True) -> bool:
        """Write an object unless one exists there; return whether the object now has this call's content.

        If the answer to a create was lost, the object is read: equal content counts as written.

        Args:
            uri: location of the object.
            data: the whole content.
            durable: also force it to the disk of a local file system before returning.
        """
        store, path = self._locate(uri)
        answer_lost = False

        def create() -> bool:
            nonlocal answer_lost
            try:
                created = store.create(path, data, durable=durable)
            except TransientError:
                answer_lost = True
                raise
            return created or (answer_lost and store.read(path) == data)

        return self._retried(create, f"creating {shown(path)}")

    def stat(self, uri: str) -> ObjectStat:
        """Return size and etag of an object."""
        store, path = self._locate(uri)
        return self._retried(lambda: store.stat(path), f"reading the size of {shown(path)}")

    def exists(self, uri: str) -> bool:
        """Return whether there is an object at a location."""
        try:
            self.stat(uri)
        except ObjectNotFound:
            return False
        return True

    def list_objects(self, prefix_uri: str, after: str = "", *, with_denied: bool = False) -> Iterator[ObjectStat]:
        """Yield the objects below a prefix in order of key; after a fault the listing continues at the last key.

        Args:
            prefix_uri: the prefix or directory; keys are relative to it.
            after: only keys greater than this one.
            with_denied: yield a folder that may not be listed, as a problem; otherwise it ends the listing. A library
                goes on without it; of the objects that we wrote, none may be missing.

        Raises:
            AccessDenied: the location may not be listed, or a folder below it.
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

        # Not limited: a listing sends one request after another, each for many keys.
        deadline_s = self.options.retry_deadline_s
        while (found := with_retries(advance, what=f"listing {root}", deadline_s=deadline_s)) is not None:
            last = found.key
            if found.problem_type == "AccessDenied" and not with_denied:
                raise AccessDenied(found.problem)
            yield found

    def delete(self, uri: str) -> None:
        """Remove an object; a missing object is not an error."""
        store, path = self._locate(uri)
        self._retried(lambda: store.delete(path), f"deleting {shown(path)}")

    def delete_all(self, uris: Iterable[str]) -> None:
        """Remove many objects of one store, a thousand per request where the store can."""
        waiting = iter(uris)
        while some := list(islice(waiting, DELETED_AT_ONCE)):
            store = self._locate(some[0])[0]
            paths = [self._locate(uri)[1] for uri in some]
            self._retried(partial(store.delete_all, paths), f"deleting {len(paths)} objects, the first {paths[0]}")

    def remove_leftovers(self, prefix_uri: str, *, older_than_s: float = 0.0) -> None:
        """Remove files that killed processes left half-written below a prefix, and empty directories.

        Object stores have neither, so nothing happens there.

        Args:
            prefix_uri: where to look.
            older_than_s: minimum age, by the time of the last change; at 0 nobody may be writing there.
        """
        store, root = self._locate(prefix_uri)
        self._retried(lambda: store.remove_leftovers(root, older_than_s), f"removing leftovers below {root}")

    def _retried(self, operation: Callable[[], ResultT], what: str) -> ResultT:
        limited = partial(self._limiter.run, operation)
        return with_retries(limited, what=what, deadline_s=self.options.retry_deadline_s)

    def _locate(self, uri: str) -> tuple[Store, str]:
        path = resolve(uri)
        protocol = scheme(path)
        if protocol not in self._stores:
            self._stores[protocol] = self._open_store(protocol)
        return self._stores[protocol], path

    def _open_store(self, protocol: str) -> Store:
        if protocol == "file":
            from stylemill.storage.local import LocalStore

            return LocalStore()
        if protocol in ("s3", "s3a"):
            from stylemill.storage.s3 import S3Store

            return S3Store(self.options)
        if protocol in ("http", "https"):
            if "http" in self._stores or "https" in self._stores:  # one for both: they share hosts and redirects
                return self._stores["http" if "http" in self._stores else "https"]
            from stylemill.storage.http import HttpStore

            return HttpStore(self.options, self._web_witnesses)
        from stylemill.storage.generic import FsspecStore

        return FsspecStore(protocol)
