"""Finding source images, and drawing a stratified sample of them.

``find_sources`` lists a prefix, a glob, one file or a list of locations, always in order of key.
``draw_sample`` chooses images for an experiment: by seed, in proportion to the size of each stratum of the library.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence

from fsspec.utils import glob_translate

from stylemill.errors import ConfigError, ObjectNotFound
from stylemill.storage.storage import Storage
from stylemill.storage.store import ObjectStat
from stylemill.storage.uri import has_columns, is_glob, is_inside, is_list, parent, scheme


def find_sources(
    storage: Storage, input_uri: str, after: str = "", *, column: str | None = None
) -> Iterator[ObjectStat]:
    """Yield the sources at a location in order of key.

    Args:
        storage: where to look.
        input_uri: resolved location.
        after: yield only keys greater than this one.
        column: column of a list whose values become labels.

    Raises:
        ConfigError: a list that names no locations (see ``source_lists``), or has no such column; or a column is asked
            for, and the input is no Parquet or CSV list.
        StorageError: the listing failed beyond its retries.
    """
    single = _single_object(storage, input_uri)
    if column is not None and (single is None or not has_columns(input_uri)):
        cure = "give a Parquet or CSV list of the sources with that column"
        raise ConfigError("input", input_uri, f"is no list with a column {column}", cure)
    if single is not None and is_list(input_uri):
        from stylemill.storage.source_lists import listed_sources  # loads pyarrow

        yield from (item for item in listed_sources(storage, input_uri, column) if item.key > after)
    elif single is not None:
        if single.key > after:
            yield single
    elif (root := sources_root(storage, input_uri)) != input_uri:
        pattern = input_uri[len(root) :].lstrip("/")
        matches = re.compile(glob_translate(pattern)).match
        for item in storage.list_objects(root, after, with_denied=True):
            if matches(item.key) or (is_folder(item) and _reaches_into(pattern, item.key)):
                yield item
    else:
        yield from storage.list_objects(input_uri, after, with_denied=True)


def is_prefix(storage: Storage, input_uri: str) -> bool:
    """Return whether a location is a folder or prefix with everything below it: no glob, list or single file."""
    return _single_object(storage, input_uri) is None and sources_root(storage, input_uri) == input_uri


def is_folder(found: ObjectStat) -> bool:
    """Return whether an entry of a listing is a folder that may not be listed."""
    return found.problem_type == "AccessDenied" and found.key.endswith("/")


def _reaches_into(pattern: str, folder: str) -> bool:
    """Return whether objects below a folder (its key, with a slash at the end) may match a glob."""
    parts, names = pattern.split("/"), folder.rstrip("/").split("/")
    for part, folder_name in zip(parts, names, strict=False):
        if part == "**":
            return True
        if not re.match(glob_translate(part), folder_name):
            return False
    return len(names) < len(parts)


def sources_root(storage: Storage, input_uri: str) -> str:
    """Return the prefix to which keys are relative: the location itself, or the root of a glob.

    A name that exists is taken literally even if it contains glob characters: ``Photos [2020]`` is a folder.
    """
    if not is_glob(input_uri) or _single_object(storage, input_uri) is not None:
        return input_uri
    if next(storage.list_objects(input_uri, with_denied=True), None) is not None:
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
