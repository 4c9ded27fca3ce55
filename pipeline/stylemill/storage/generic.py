"""Stores behind any other fsspec file system (gs://, abfs://, memory://), found by scheme."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import fsspec

from stylemill.errors import AccessDenied, ConfigError, ObjectNotFound, PathConflict, StorageError
from stylemill.storage.retry import Throttled, TransientError
from stylemill.storage.store import ObjectStat, denied_folder
from stylemill.storage.uri import name, scheme

_EXTRAS = {"gs": "gcs", "gcs": "gcs", "abfs": "azure", "abfss": "azure", "az": "azure", "adl": "azure"}
"""Extra of stylemill that brings the package for a scheme."""


def _cure(protocol: str) -> str:
    if protocol in _EXTRAS:
        return f"install its extra: pip install 'stylemill[{_EXTRAS[protocol]}]'"
    if protocol in fsspec.available_protocols():
        return "install the package that fsspec needs for it"
    return "write a path, or a location such as s3://bucket/prefix, gs://..., abfs://..."


class FsspecStore:
    """Objects behind an fsspec file system; object stores write whole objects atomically.

    Raises:
        ConfigError: fsspec has no file system for this scheme, or its package is not installed.
    """

    def __init__(self, protocol: str) -> None:
        try:
            self._fs = fsspec.filesystem(protocol, use_listings_cache=False)  # other processes write there too
        except (ValueError, ImportError, TypeError, OSError) as error:
            raise ConfigError("location", f"{protocol}://", f"cannot be reached ({error})", _cure(protocol)) from error

    def read(self, path: str) -> bytes:
        """Return the whole content of an object."""
        with _translated_errors(path):
            return bytes(self._fs.cat_file(path))

    def read_range(self, path: str, start: int, size_bytes: int) -> bytes:
        """Return at most ``size_bytes`` of an object, from the byte ``start`` on."""
        with _translated_errors(path):
            if start and start >= int(self._fs.info(path).get("size") or 0):  # many stores refuse such a range
                return b""
            return bytes(self._fs.cat_file(path, start=start, end=start + size_bytes))

    def write(self, path: str, data: bytes, *, durable: bool = False) -> None:
        """Replace an object."""
        del durable
        with _translated_errors(path):
            self._fs.pipe_file(path, data)

    def create(self, path: str, data: bytes, *, durable: bool = True) -> bool:
        """Write an object unless it exists, as exclusively as the file system can; return whether it was written."""
        del durable
        with _translated_errors(path):
            try:
                self._fs.pipe_file(path, data, mode="create")
            except FileExistsError:
                return False
            return True

    def stat(self, path: str) -> ObjectStat:
        """Return size and etag of an object."""
        with _translated_errors(path):
            found = self._fs.info(path)
        if found["type"] != "file":
            raise ObjectNotFound(f"{path} is not an object")
        return _stat(path, name(path), found)

    def list_objects(self, root: str, after: str = "") -> Iterator[ObjectStat]:
        """Yield the objects below a prefix in order of key, with one folder of each level in memory at a time."""
        yield from self._walk(root, self._fs._strip_protocol(root).rstrip("/"), "", after)

    def _walk(self, root: str, folder: str, prefix: str, after: str) -> Iterator[ObjectStat]:
        try:
            entries = self._entries(root, folder, prefix)
        except (AccessDenied, PathConflict) as error:
            yield from denied_folder(f"{scheme(root)}://{folder.lstrip('/')}", prefix, after, error)
            return
        for key, found in entries:
            if found["type"] == "nameless":
                if key > after:
                    problem = "a folder without a name cannot be listed; rename its objects"
                    yield ObjectStat(f"{scheme(root)}://{found['name'].lstrip('/')}/", key, 0, "", "BadKey", problem)
            elif not key.endswith("/"):
                if key > after:
                    yield _stat(f"{scheme(root)}://{found['name'].lstrip('/')}", key, found)
            elif key > after or after.startswith(key):
                yield from self._walk(root, found["name"].rstrip("/"), key, after)

    def _entries(self, root: str, folder: str, prefix: str) -> list[tuple[str, dict[str, Any]]]:
        """Return what a folder holds, in order of key; the keys of folders end with a slash."""
        entries = []
        with _translated_errors(root), contextlib.suppress(FileNotFoundError):  # an absent folder is an empty one
            for found in self._fs.ls(folder, detail=True):
                if found["name"].rstrip("/") != folder:
                    name = found["name"].rstrip("/").rpartition("/")[2]
                    entries.append((prefix + name + "/" * (found["type"] == "directory"), found))
                elif found["type"] == "directory":  # and not the marker of the folder itself, which some stores list
                    entries.append((prefix + "/", found | {"type": "nameless"}))
        return sorted(entries, key=lambda entry: entry[0])

    def delete(self, path: str) -> None:
        """Remove an object; a missing object is not an error."""
        with _translated_errors(path), contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(path)

    def delete_all(self, paths: Sequence[str]) -> None:
        """Remove objects one after another."""
        for path in paths:
            self.delete(path)

    def remove_leftovers(self, root: str, older_than_s: float) -> None:
        """Do nothing: what counts as a leftover in a store of an unknown kind is not known."""


def _stat(uri: str, key: str, found: dict[str, Any]) -> ObjectStat:
    versions = (found.get(field) for field in ("etag", "ETag", "md5Hash", "mtime", "last_modified", "created"))
    etag = next((str(version) for version in versions if version), "")
    return ObjectStat(uri, key, int(found.get("size") or 0), etag)


@contextlib.contextmanager
def _translated_errors(path: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise ObjectNotFound(f"{path} does not exist") from error
    except PermissionError as error:
        raise AccessDenied(f"{path}: {error}") from error
    except (TimeoutError, ConnectionError, OSError) as error:
        raise TransientError(f"{path}: {error}") from error
    except NotImplementedError as error:
        raise StorageError(f"{path}: {error}") from error
    except Exception as error:
        # gcsfs, adlfs and their dependencies raise their own classes; the HTTP status tells them apart.
        raise _by_status(error, path) from error


def _by_status(error: Exception, path: str) -> Exception:
    names = ("code", "status", "status_code")
    status = next((value for value in (getattr(error, name, None) for name in names) if isinstance(value, int)), None)
    text = f"{path}: {type(error).__name__}: {error}"
    if status == 404:
        return ObjectNotFound(text)
    if status in (401, 403):
        return AccessDenied(text)
    if status in (429, 503):
        return Throttled(text)
    if status is not None and (status == 408 or status >= 500):
        return TransientError(text)
    return StorageError(text)
