"""Files of this machine as a store: atomic writes, exclusive creates, ordered streaming listings."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import stat as stat_module
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from stylemill.errors import AccessDenied, ObjectNotFound, PathConflict, StorageError
from stylemill.storage.retry import TransientError
from stylemill.storage.store import ObjectStat

TEMPORARY_PREFIX = ".stylemill-tmp-"
"""Names of files that are being written; a listing leaves them out, ``remove_leftovers`` removes old ones."""

_TRANSIENT = {errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.ESTALE, errno.ETIMEDOUT, errno.EIO, errno.EMFILE}
_NO_HARD_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}
_FULL = {errno.ENOSPC, errno.EDQUOT}
_CONFLICT = {errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EILSEQ}


class LocalStore:
    """The operating system's files. Locations are absolute paths."""

    def read(self, path: str) -> bytes:
        """Return the whole content of a file."""
        with _translated(path), _open_regular(path) as file:
            return file.read()

    def read_head(self, path: str, size_bytes: int) -> bytes:
        """Return at most the first ``size_bytes`` of a file."""
        with _translated(path), _open_regular(path) as file:
            return file.read(size_bytes)

    def write(self, path: str, data: bytes, *, durable: bool = False) -> None:
        """Replace a file in one step: readers see the old content or the new one, never a part."""
        with _translated(path), _temporary(path, data, durable) as temporary:
            Path(temporary).replace(path)
            if durable:
                _sync_folder(path)

    def create(self, path: str, data: bytes) -> bool:
        """Write a file in one step unless it exists; tell whether it was written."""
        with _translated(path), _temporary(path, data, True) as temporary:
            try:
                os.link(temporary, path)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in _NO_HARD_LINKS:
                    raise
                if not _move_unless_exists(temporary, path):
                    return False
            _sync_folder(path)
            return True

    def stat(self, path: str) -> ObjectStat:
        """Return size and etag of a file."""
        with _translated(path):
            found = Path(path).stat()
            if not stat_module.S_ISREG(found.st_mode):
                raise ObjectNotFound(f"{path} is no file")
            return ObjectStat(path, Path(path).name, found.st_size, _etag(found))

    def list_objects(self, root: str, after: str = "") -> Iterator[ObjectStat]:
        """Yield every file below a directory in order of key, holding one directory level at a time.

        A directory that does not exist holds nothing, as a prefix of an object store.

        Symbolic links to files are followed, those to directories are reported and not followed (they may form loops);
        devices, pipes and sockets are reported, since opening one may block for ever.
        """
        with _translated(root):
            is_directory = Path(root).is_dir()
        if is_directory:
            yield from _walk(root, "", after)

    def delete(self, path: str) -> None:
        """Remove a file; one that is gone already is fine."""
        with _translated(path):
            Path(path).unlink(missing_ok=True)

    def delete_all(self, paths: Sequence[str]) -> None:
        """Remove objects one after another."""
        for path in paths:
            self.delete(path)

    def remove_leftovers(self, root: str, older_than_s: float) -> None:
        """Remove half-written files and empty directories that nobody has touched for so long, ``root`` included."""
        newest_s = time.time() - older_than_s
        for directory, _, names in os.walk(root, topdown=False):
            with _translated(directory), contextlib.suppress(FileNotFoundError):  # another process is quicker
                is_old = Path(directory).stat().st_mtime <= newest_s
                for name in names:
                    path = Path(directory, name)
                    if name.startswith(TEMPORARY_PREFIX) and path.stat().st_mtime <= newest_s:
                        path.unlink()
                if is_old:
                    with contextlib.suppress(OSError):  # it holds something
                        Path(directory).rmdir()


def _etag(found: os.stat_result) -> str:
    return f"{found.st_mtime_ns:x}-{found.st_size:x}"


def _walk(directory: str, prefix: str, after: str) -> Iterator[ObjectStat]:
    with _translated(directory):
        entries = [(_sort_key(entry), entry) for entry in os.scandir(directory)]
    entries.sort(key=lambda pair: pair[0])
    for sort_key, entry in entries:
        if entry.name.startswith(TEMPORARY_PREFIX):
            continue
        key = prefix + sort_key
        if sort_key.endswith("/"):
            if not after or key > after or after.startswith(key):
                yield from _walk(entry.path, key, after)
        elif key > after:
            found = _stat_entry(entry, key)
            if found is not None:
                yield found


def _sort_key(entry: os.DirEntry[str]) -> str:
    name = entry.name
    if not _is_utf8(name):
        name = _readable(name)
    return name + "/" if entry.is_dir(follow_symlinks=False) else name


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _readable(text: str) -> str:
    """Return a name that is not UTF-8 as text, each odd byte as four characters (backslash, x, two digits)."""
    return os.fsencode(text).decode("utf-8", "backslashreplace")


def _stat_entry(entry: os.DirEntry[str], key: str) -> ObjectStat | None:
    uri = entry.path
    if not _is_utf8(uri):
        problem = "the name of the file or of a folder above it is not valid UTF-8; rename it"
        return ObjectStat(_readable(uri), key, 0, "", "NameNotUtf8", problem)
    try:
        found = entry.stat()
    except FileNotFoundError:
        if entry.is_symlink():
            return ObjectStat(uri, key, 0, "", "BrokenLink", "the symbolic link points to nothing")
        return None  # removed between listing and stat: it was never a source
    except OSError as error:
        return ObjectStat(uri, key, 0, "", "BrokenLink", f"the link cannot be followed: {error.strerror}")
    if stat_module.S_ISDIR(found.st_mode):
        problem = "a symbolic link to a directory is not followed; give the directory itself as input"
        return ObjectStat(uri, key, 0, "", "DirectoryLink", problem)
    if not stat_module.S_ISREG(found.st_mode):
        return ObjectStat(uri, key, 0, "", "SpecialFile", "a device, pipe or socket is not read")
    return ObjectStat(uri, key, found.st_size, _etag(found))


@contextlib.contextmanager
def _open_regular(path: str) -> Iterator[BinaryIO]:
    """Open a file for reading; what is none (a pipe would block, a device may never end) is a conflict."""
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:  # noqa: PTH123
        if not stat_module.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise PathConflict(f"{path} is no regular file")
        yield file


def _sync_folder(path: str) -> None:
    """Force the entry of a file to the disk; its content is there already."""
    folder = os.open(Path(path).parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _move_unless_exists(temporary: str, path: str) -> bool:
    """Do what a hard link does on file systems that have none (FAT, many FUSE mounts), under the folder's lock.

    The kernel gives the lock back when its holder dies. It is as wide as the file system makes it: often one machine.
    """
    target = Path(path)
    with open(target.parent / f"{TEMPORARY_PREFIX}lock", "wb") as lock:  # noqa: PTH123
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.path.lexists(target):
            return False
        Path(temporary).rename(target)
        return True


@contextlib.contextmanager
def _temporary(path: str, data: bytes, durable: bool) -> Iterator[str]:
    """Yield the name of a file beside ``path`` that holds ``data``; it is gone afterwards unless renamed."""
    directory = Path(path).parent
    temporary = str(directory / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}")
    try:
        try:
            file = open(temporary, "xb")  # noqa: SIM115, PTH123
        except FileNotFoundError:
            directory.mkdir(parents=True, exist_ok=True)
            file = open(temporary, "xb")  # noqa: SIM115, PTH123
        with file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        yield temporary
    finally:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            os.unlink(temporary)  # noqa: PTH108


@contextlib.contextmanager
def _translated(path: str) -> Iterator[None]:
    """Raise this project's errors for the operating system's."""
    try:
        yield
    except FileNotFoundError as error:
        raise ObjectNotFound(f"{path} does not exist") from error
    except PermissionError as error:
        raise AccessDenied(f"{path}: permission denied") from error
    except OSError as error:
        if error.errno in _CONFLICT:
            raise PathConflict(f"{path}: {error.strerror}") from error
        if error.errno in _TRANSIENT:
            raise TransientError(f"{path}: {error.strerror}") from error
        cure = "; make room and run the same command again to resume" * (error.errno in _FULL)
        raise StorageError(f"{path}: {error.strerror or error}{cure}") from error
    except ValueError as error:  # a NUL, or half a character
        raise PathConflict(f"{path!r} is no file name: {error}") from error
