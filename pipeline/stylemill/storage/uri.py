"""Locations and keys as text: always ``str``, never percent-encoded."""

from __future__ import annotations

import contextlib
import os
import posixpath
import re
from pathlib import Path

from stylemill.config import check_no_credential
from stylemill.errors import ConfigError, without_credentials

GLOB_CHARACTERS = frozenset("*?[")
TEXT_SUFFIXES = (".txt", ".lst")
LIST_SUFFIXES = (".parquet", ".csv", *TEXT_SUFFIXES)
"""Suffixes of lists of locations (``source_lists.py``); a text file has one location per line."""
_LIKE_A_URI = re.compile(r"\s*[A-Za-z][\w.+:-]+:/")


def real_location(uri: str) -> str:
    """Return a location with the symbolic links of a local path resolved."""
    return os.path.realpath(uri) if scheme(uri) == "file" else uri


def scheme(uri: str) -> str:
    """Return the scheme of a location (``s3``), or ``file`` for a bare path."""
    head, separator, _ = uri.partition("://")
    return head.lower() if separator and head.isidentifier() else "file"


def resolve(uri: str) -> str:
    """Return a location in canonical form: bare paths and ``file://`` become absolute paths, no trailing slash.

    Raises:
        ConfigError: the location is empty, not UTF-8, a mistyped URI, or contains credentials.
    """
    if not uri:
        raise ConfigError("location", uri, "is empty", "write a path or a URI such as s3://bucket/prefix")
    try:
        uri.encode()
    except UnicodeEncodeError:
        raise ConfigError("location", uri, "is not valid UTF-8", "rename it; manifests hold UTF-8 text only") from None
    if scheme(uri) == "file":
        is_uri = uri[:7].lower() == "file://"
        if not is_uri and _LIKE_A_URI.match(uri):  # otherwise s3:/x would become a folder named s3:
            cure = "write SCHEME://..., or put ./ before a path of this machine"
            raise ConfigError("location", uri, "looks like a mistyped URI", cure)
        path = Path(uri[len("file://") :] if is_uri else uri)
        with contextlib.suppress(RuntimeError):  # "~name" of an unknown user is an ordinary file name
            path = path.expanduser()
        return str(path.absolute()) if ".." not in path.parts else str(path.resolve())
    check_no_credential("location", uri)
    head, _, rest = uri.partition("://")
    return f"{head.lower()}://{rest.rstrip('/')}"


def shown(uri: str) -> str:
    """Return a location for people: a URL without login and query, which may hold a signature."""
    if scheme(uri) not in ("http", "https"):
        return uri
    start, mark, _ = without_credentials(uri).partition("?")
    return f"{start}?..." if mark else start


def join(uri: str, *parts: str) -> str:
    """Append path parts to a location, without encoding and without resolving ``..``."""
    return "/".join((uri.rstrip("/"), *(part.strip("/") for part in parts)))


def parent(uri: str) -> str:
    """Return the location one level up."""
    return uri.rstrip("/").rpartition("/")[0] or "/"


def name(uri: str) -> str:
    """Return the last component of a location."""
    return posixpath.basename(uri.rstrip("/"))


def is_glob(uri: str) -> bool:
    """Return whether a location contains glob characters."""
    return any(character in GLOB_CHARACTERS for character in uri)


def is_list(uri: str) -> bool:
    """Return whether the name of a file is that of a list of locations."""
    return name(uri).lower().endswith(LIST_SUFFIXES)


def has_columns(uri: str) -> bool:
    """Return whether the name of a file is that of a list of locations with columns: Parquet or CSV."""
    return is_list(uri) and not name(uri).lower().endswith(TEXT_SUFFIXES)


def is_inside(uri: str, root: str) -> bool:
    """Return whether ``uri`` is ``root`` or below it (both resolved)."""
    return uri == root or uri.startswith(root.rstrip("/") + "/")


def can_name_folder(text: str) -> bool:
    """Return whether a text is a valid folder name on every store and can be printed in a terminal."""
    return "/" not in text and key_problem(text) is None and text.isprintable()


def key_problem(key: str) -> str | None:
    """Return why a key cannot be mirrored safely under the output root, or None.

    Keys are relative POSIX paths without ``.``, ``..``, empty components or NUL.
    """
    if key.startswith("/"):
        return "the key is absolute"
    components = key.split("/")
    if ".." in components or "." in components:
        return "the key contains a '.' or '..' component"
    if "" in components:
        return "the key contains an empty component"
    if "\0" in key:
        return "the key contains a NUL"
    return None
