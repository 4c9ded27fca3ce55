"""Finding source images, and drawing a stratified sample of them.

``find_sources`` lists a prefix, a glob, one file or a Parquet file of locations, always in order of key.
``draw_sample`` chooses images for an experiment: by seed, in proportion to the size of each stratum of the library.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.utils import glob_translate

from stylemill.errors import ConfigError, ObjectNotFound
from stylemill.storage.storage import Storage
from stylemill.storage.store import ObjectStat
from stylemill.storage.uri import is_glob, is_inside, name, parent, resolve, scheme


def find_sources(storage: Storage, input_uri: str, after: str = "") -> Iterator[ObjectStat]:
    """Yield the sources at a location in order of key.

    Args:
        storage: where to look.
        input_uri: resolved location.
        after: yield only keys greater than this one.

    Raises:
        ConfigError: a Parquet file without a string column ``uri``.
        StorageError: the listing failed beyond its retries.
    """
    single = _single_object(storage, input_uri)
    if single is not None and name(input_uri).endswith(".parquet"):
        found: Iterator[ObjectStat] = _rows_of(storage, input_uri)
        yield from (item for item in found if item.key > after)
    elif single is not None:
        if single.key > after:
            yield single
    elif (root := sources_root(storage, input_uri)) != input_uri:
        matches = re.compile(glob_translate(input_uri[len(root) :].lstrip("/"))).match
        yield from (item for item in storage.list_objects(root, after) if matches(item.key))
    else:
        yield from storage.list_objects(input_uri, after)


def sources_root(storage: Storage, input_uri: str) -> str:
    """Return the prefix to which keys are relative: the location itself, or the root of a glob.

    A name that exists is taken literally even if it contains glob characters: ``Photos [2020]`` is a folder.
    """
    if not is_glob(input_uri) or _single_object(storage, input_uri) is not None:
        return input_uri
    if next(storage.list_objects(input_uri), None) is not None:
        return input_uri
    return glob_root(input_uri)


def glob_root(uri: str) -> str:
    """Return the part of a glob before its first component with glob characters; keys are relative to it."""
    while is_glob(uri):
        uri = parent(uri)
    return uri


def input_covers(root: str, input_uri: str, folder: str) -> bool:
    """Return whether objects written to a folder could match the input and so be taken for sources.

    Args:
        root: the result of ``sources_root`` for the input.
        input_uri: resolved location of the sources.
        folder: resolved location of the folder.
    """
    if not is_inside(folder, root):
        return False
    components = input_uri[len(root) :].strip("/").split("/")
    if input_uri == root or "**" in components:
        return True
    # Without ** a glob matches objects at one depth only.
    depth = len([part for part in folder[len(root) :].split("/") if part])
    return depth < len(components)


def _single_object(storage: Storage, uri: str) -> ObjectStat | None:
    if uri.count("/") < 3 and scheme(uri) != "file":
        return None  # a bucket
    try:
        return storage.stat(uri)
    except ObjectNotFound:
        return None


def _rows_of(storage: Storage, uri: str) -> Iterator[ObjectStat]:
    data = storage.read_bytes(uri)
    try:
        table = pq.read_table(pa.BufferReader(data))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        raise ConfigError("input", uri, f"is not a Parquet file ({error})", "give one with a uri column") from None
    if "uri" not in table.schema.names:
        raise ConfigError("input", uri, f"has no uri column, only {table.schema.names}", "name the column uri")
    uris = [resolve(text) for text in _texts(table, "uri", uri) if text]
    given = _texts(table, "key", uri) if "key" in table.schema.names else [None] * len(uris)
    if len(uris) != table.num_rows:
        raise ConfigError("input", uri, "has rows with an empty uri", "remove those rows")
    rows = sorted((key or _default_key(text), text) for key, text in zip(given, uris, strict=True))
    previous = None
    for key, text in rows:
        if key == previous:
            raise ConfigError("input", uri, f"contains the key {key!r} twice", "give distinct values in a key column")
        previous = key
        yield ObjectStat(text, key, 0, "")


def _texts(table: pa.Table, column_name: str, uri: str) -> list[str | None]:
    column = table.column(column_name)
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not any(is_text(kind) for is_text in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)):
        raise ConfigError("input", uri, f"has values of type {kind} in the column {column_name}", "write text there")
    texts: list[str | None] = column.to_pylist()
    return texts


def _default_key(uri: str) -> str:
    return uri.partition("://")[2] if scheme(uri) != "file" else uri.lstrip("/")


# Stratified sampling


def stratum_of(key: str) -> str:
    """Return the stratum of an image: the first folder of its key, or ``""`` at the root."""
    folder, separator, _ = key.partition("/")
    return folder if separator else ""


def draw_sample(keys: Sequence[str], num_images: int, *, seed: int) -> list[str]:
    """Return a sample of keys, from each stratum in proportion to its size, and one from each if there is room.

    The rank of a key depends on seed and key alone, so most of a sample stays the same when a library grows.

    Args:
        keys: all keys, distinct.
        num_images: size of the sample; 0, or more than there are, takes all.
        seed: seed of the draw.

    Returns:
        The drawn keys in order.
    """
    if not num_images or num_images >= len(keys):
        return sorted(keys)
    strata: dict[str, list[str]] = defaultdict(list)
    for key in sorted(keys, key=lambda key: _rank(key, seed)):
        strata[stratum_of(key)].append(key)
    shares = _shares({name: len(members) for name, members in strata.items()}, num_images)
    return sorted(key for name, members in strata.items() for key in members[: shares[name]])


def _rank(key: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}\0{key}".encode()).digest()


def _shares(sizes: dict[str, int], num_images: int) -> dict[str, int]:
    """Return images per stratum by the largest remainder, after one for each of the largest strata.

    Source: Hamilton's method of apportionment.
    """
    by_size = sorted(sizes, key=lambda name: (-sizes[name], name))
    shares = {name: int(rank < num_images) for rank, name in enumerate(by_size)}
    total, rest = sum(sizes.values()), num_images - sum(shares.values())
    if rest:
        quotas = {name: num_images * size / total for name, size in sizes.items()}
        while rest:
            open_strata = [name for name in by_size if shares[name] < sizes[name]]
            neediest = max(open_strata, key=lambda name: quotas[name] - shares[name])
            shares[neediest] += 1
            rest -= 1
    return shares
