"""The local file system as a store: atomic writes, exclusive creates, ordered listings that stream."""

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
from stylemill.storage.store import ObjectStat, denied_folder

TEMPORARY_PREFIX = ".stylemill-tmp-"
"""Start of the names of files that are being written; listings skip them, ``remove_leftovers`` removes old ones."""

_TRANSIENT = {errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.ESTALE, errno.ETIMEDOUT, errno.EIO, errno.EMFILE}
_NO_HARD_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}
_FULL = {errno.ENOSPC, errno.EDQUOT}
_CONFLICT = {errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EILSEQ}


class LocalStore:
    """Files of this machine. Locations are absolute paths."""

    def read(self, path: str) -> bytes:
        """Return the whole content of a file."""
        with _translated_errors(path), _open_regular(path) as file:
            return file.read()

    def read_range(self, path: str, start: int, size_bytes: int) -> bytes:
        """Return at most ``size_bytes`` of a file, from the byte ``start`` on."""
        with _translated_errors(path), _open_regular(path) as file:
            file.seek(start)
            return file.read(size_bytes)

    def write(self, path: str, data: bytes, *, durable: bool = False) -> None:
        """Replace a file in one step: readers see the old or the new content, never a part."""
        with _translated_errors(path), _temporary(path, data, durable) as temporary:
            Path(temporary).replace(path)
            if durable:
                _sync_folder(path)

    def create(self, path: str, data: bytes, *, durable: bool = True) -> bool:
        """Write a file in one step unless it exists; return whether it was written."""
        with _translated_errors(path), _temporary(path, data, durable) as temporary:
            try:
                os.link(temporary, path)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in _NO_HARD_LINKS:
                    raise
                if not _move_unless_exists(temporary, path):
                    return False
            if durable:
                _sync_folder(path)
            return True

    def stat(self, path: str) -> ObjectStat:
        """Return size and etag of a file."""
        with _translated_errors(path):
            found = Path(path).stat()
            if not stat_module.S_ISREG(found.st_mode):
                raise ObjectNotFound(f"{path} is not a file")
            return ObjectStat(path, Path(path).name, found.st_size, _etag(found))

    def list_objects(self, root: str, after: str = "") -> Iterator[ObjectStat]:
        """Yield every file below a directory in order of key, with one directory level in memory at a time.

        A directory that does not exist is empty, as a prefix of an object store is.

        A directory below the root that may not be read is yielded as a problem: its key ends with a slash.

        Symbolic links to files are followed. Links to directories are yielded as a problem, since they may form loops;
        so are devices, pipes and sockets, since opening one may block for ever.
        """
        with _translated_errors(root):
            is_directory = Path(root).is_dir()
        if is_directory:
            yield from _walk(root, "", after)

    def delete(self, path: str) -> None:
        """Remove a file; a missing file is not an error."""
        with _translated_errors(path):
            Path(path).unlink(missing_ok=True)

    def delete_all(self, paths: Sequence[str]) -> None:
        """Remove files one after another."""
        for path in paths:
            self.delete(path)

    def remove_leftovers(self, root: str, older_than_s: float) -> None:
        """Remove half-written files and empty directories of at least this age, ``root`` included."""
        newest_s = time.time() - older_than_s
        for directory, _, names in os.walk(root, topdown=False):
            with (
                _translated_errors(directory),
                contextlib.suppress(FileNotFoundError),
            ):  # removed by another process
                is_old = Path(directory).stat().st_mtime <= newest_s
                for name in names:
                    path = Path(directory, name)
                    if name.startswith(TEMPORARY_PREFIX) and path.stat().st_mtime <= newest_s:
                        path.unlink()
                if is_old:
                    with contextlib.suppress(OSError):  # it is not empty
                        Path(directory).rmdir()


def _etag(found: os.stat_result) -> str:
    return f"{found.st_mtime_ns:x}-{found.st_size:x}"


def _walk(directory: str, prefix: str, after: str) -> Iterator[ObjectStat]:
    try:
        with _translated_errors(directory):
            entries = [(_sort_key(entry), entry) for entry in os.scandir(directory)]
    except ObjectNotFound:
        return  # removed since the folder above it was listed
    except (AccessDenied, PathConflict) as error:
        yield from denied_folder(_escaped(directory), prefix, after, error)
        return
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
        name = _escaped(name)
    return name + "/" if entry.is_dir(follow_symlinks=False) else name


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _escaped(text: str) -> str:
    """Return a name that is not UTF-8 as text, each invalid byte as four characters (backslash, x, two digits)."""
    return os.fsencode(text).decode("utf-8", "backslashreplace")


def _stat_entry(entry: os.DirEntry[str], key: str) -> ObjectStat | None:
    uri = entry.path
    if not _is_utf8(uri):
        problem = "the name of the file or of a folder above it is not valid UTF-8; rename it"
        return ObjectStat(_escaped(uri), key, 0, "", "NameNotUtf8", problem)
    try:
        found = entry.stat()
    except FileNotFoundError:
        if entry.is_symlink():
            return ObjectStat(uri, key, 0, "", "BrokenLink", "the target of the symbolic link does not exist")
        return None  # removed between listing and stat
    except PermissionError:  # the names in its folder may be listed, the files not
        return ObjectStat(uri, key, 0, "", "AccessDenied", f"{uri}: permission denied")
    except OSError as error:
        return ObjectStat(uri, key, 0, "", "BrokenLink", f"the link cannot be followed: {error.strerror}")
    if stat_module.S_ISDIR(found.st_mode):
        problem = "a symbolic link to a directory is not followed; give the directory itself as input"
        return ObjectStat(uri, key, 0, "", "DirectoryLink", problem)
    if not stat_module.S_ISREG(found.st_mode):
        return ObjectStat(uri, key, 0, "", "SpecialFile", "devices, pipes and sockets are not read")
    return ObjectStat(uri, key, found.st_size, _etag(found))


@contextlib.contextmanager
def _open_regular(path: str) -> Iterator[BinaryIO]:
    """Open a regular file for reading; anything else is a conflict (a pipe would block, a device may never end)."""
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:  # noqa: PTH123
        if not stat_module.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise PathConflict(f"{path} is not a regular file")
        yield file


def _sync_folder(path: str) -> None:
    """Force the directory entry of a file to the disk; its content is there already."""
    folder = os.open(Path(path).parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _move_unless_exists(temporary: str, path: str) -> bool:
    """Rename a file unless the target exists, under a lock of the folder; return whether it was renamed.

    Replaces the hard link on file systems without any (FAT, many FUSE mounts). The kernel releases the lock when its
    holder dies. How many machines the lock covers depends on the file system: often only one.
    """
    target = Path(path)
    with _locked(target.parent / f"{TEMPORARY_PREFIX}lock"):
        if os.path.lexists(target):
            return False
        Path(temporary).rename(target)
        return True


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file; if ``remove_leftovers`` removes the file meanwhile, lock the next one."""
    while True:
        with open(path, "wb") as lock:  # noqa: PTH123
            fcntl.flock(lock, fcntl.LOCK_EX)
            if _is_same_file(lock, path):
                yield
                return


def _is_same_file(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def _temporary(path: str, data: bytes, durable: bool) -> Iterator[str]:
    """Yield the name of a file with this content in the folder of ``path``; remove it afterwards unless renamed."""
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
def _translated_errors(path: str) -> Iterator[None]:
    """Translate errors of the operating system into those of this project."""
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
        raise PathConflict(f"{path!r} is not a file name: {error}") from error
