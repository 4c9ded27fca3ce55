"""Finding source images, and drawing a stratified sample of them.

``find_sources`` lists a prefix, a glob, one file or a Parquet file of locations, always in order of key.
``draw_sample`` chooses images for an experiment: by seed, in proportion to the size of each stratum of the library.
"""

from __future__ import annotations

import hashlib
import heapq
import re
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.utils import glob_translate

from stylemill.errors import ConfigError, ObjectNotFound, StorageError
from stylemill.process import scratch_folder
from stylemill.storage.storage import Storage
from stylemill.storage.store import ObjectStat
from stylemill.storage.uri import is_glob, is_inside, name, parent, resolve, scheme

ROWS_PER_PORTION = 200_000
"""Rows of a Parquet file that are sorted in memory at once: some 100 MB."""
ROWS_PER_READ = 1_000
"""Rows of each sorted portion that are in memory while portions are merged."""


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
        pattern = input_uri[len(root) :].lstrip("/")
        matches = re.compile(glob_translate(pattern)).match
        for item in storage.list_objects(root, after, with_denied=True):
            if matches(item.key) or (is_folder(item) and _reaches_into(pattern, item.key)):
                yield item
    else:
        yield from storage.list_objects(input_uri, after, with_denied=True)


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


def _rows_of(storage: Storage, uri: str) -> Iterator[ObjectStat]:
    """Yield the rows of a Parquet file in order of key: sorts portions on disk and merges them."""
    try:
        yield from _merged(storage.read_bytes(uri), uri)
    except OSError as error:
        cure = "make room, or set TMPDIR to a larger disk"
        raise StorageError(f"sorting {uri} in {tempfile.gettempdir()} failed: {error}; {cure}") from error


def _merged(data: bytes, uri: str) -> Iterator[ObjectStat]:
    with scratch_folder("stylemill-sources-") as folder:
        copy = Path(folder, "sources.parquet")
        copy.write_bytes(data)
        del data
        portions = []
        for number, rows in enumerate(_portions(copy, uri)):
            portions.append(Path(folder, f"{number}.arrow"))
            rows.sort()
            table = pa.table({"key": [key for key, _ in rows], "uri": [text for _, text in rows]})
            with pa.ipc.new_file(portions[-1], table.schema) as writer:
                writer.write_table(table, ROWS_PER_READ)
        previous = None
        for key, text in heapq.merge(*(_sorted_rows(portion) for portion in portions)):
            if key == previous:
                cure = "give distinct values in a key column"
                raise ConfigError("input", uri, f"contains the key {key!r} twice", cure)
            previous = key
            yield ObjectStat(text, key, 0, "")


def _portions(copy: Path, uri: str) -> Iterator[list[tuple[str, str]]]:
    """Yield pairs of key and location in portions that fit into memory, in the order of the file."""
    try:
        file = pq.ParquetFile(copy)
        names = file.schema_arrow.names
        if "uri" not in names:
            raise ConfigError("input", uri, f"has no uri column, only {names}", "name the column uri")
        columns = [name for name in ("uri", "key") if name in names]
        for column in columns:
            _check_text(file.schema_arrow.field(column), uri)
        for batch in file.iter_batches(ROWS_PER_PORTION, columns=columns):
            texts = batch.column("uri").to_pylist()
            if not all(texts):
                raise ConfigError("input", uri, "has rows with an empty uri", "remove those rows")
            uris = [resolve(text) for text in texts]
            keys = batch.column("key").to_pylist() if "key" in columns else [None] * len(uris)
            yield [(key or _default_key(text), text) for key, text in zip(keys, uris, strict=True)]
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        if isinstance(error, OSError) and error.errno:  # of the disk; Arrow's own about damaged files have none
            raise
        raise ConfigError("input", uri, f"is not a Parquet file ({error})", "give one with a uri column") from None


def _sorted_rows(portion: Path) -> Iterator[tuple[str, str]]:
    with pa.OSFile(str(portion)) as opened:
        file = pa.ipc.open_file(opened)
        for number in range(file.num_record_batches):
            batch = file.get_batch(number)
            yield from zip(batch.column("key").to_pylist(), batch.column("uri").to_pylist(), strict=True)


def _check_text(field: pa.Field, uri: str) -> None:
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    if not any(is_text(kind) for is_text in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)):
        raise ConfigError("input", uri, f"has values of type {kind} in the column {field.name}", "write text there")


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
