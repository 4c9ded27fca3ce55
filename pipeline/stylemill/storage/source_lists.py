"""Lists of locations: Parquet and CSV files with a column ``uri``, and text files with one location per line.

``listed_sources`` yields what a list names in order of key. A list may be longer than memory: it is read in portions,
each portion is sorted on disk, and the portions are merged.
"""

from __future__ import annotations

import csv
import heapq
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from stylemill.errors import ConfigError, StorageError, without_credentials
from stylemill.process import scratch_folder
from stylemill.storage.storage import Storage
from stylemill.storage.store import ObjectStat
from stylemill.storage.uri import TEXT_SUFFIXES, name, resolve, scheme

ROWS_PER_PORTION = 200_000
"""Rows that are sorted in memory at once: some 100 MB."""
ROWS_PER_READ = 1_000
"""Rows of each sorted portion that are in memory while portions are merged."""
LONGEST_LINE = 1_000_000
"""Characters; a longer line is no location, and would fill memory."""

_COLUMNS = ("key", "uri", "problem", "label")


class _Entry(NamedTuple):
    """What one row or line says."""

    place: str
    """Where it stands, for messages: ``line 3``."""
    uri: str | None
    key: str | None
    label: str = ""


class _Source(NamedTuple):
    """One source of a list; sorts by key."""

    key: str
    uri: str
    problem: str
    """Why the location cannot be read; empty if it may be."""
    label: str
    """Value of the column that was asked for; empty without one."""


def listed_sources(storage: Storage, uri: str, column: str | None = None) -> Iterator[ObjectStat]:
    """Yield the sources that a list names in order of key.

    A location that no store could have (a mistyped URI, one with a credential) is yielded as a problem.

    Args:
        storage: where the list is.
        uri: resolved location of the list.
        column: column whose values become labels.

    Raises:
        ConfigError: the list is not what its suffix says, has no column ``uri`` or none of that name, has an empty or a
            doubled entry, or not one location of it can be read.
        StorageError: it cannot be read, or there is no room to sort it.
    """
    try:
        with scratch_folder("stylemill-sources-") as folder:
            path = Path(uri)
            if scheme(uri) != "file":
                path = folder / "list"
                storage.copy_to(uri, path)
            else:
                storage.read_head(uri, 1)  # raises what a file that may not be read should raise
            yield from _merged(_sorted_portions(_entries(path, uri, column), uri, folder), uri)
    except OSError as error:
        cure = "make room, or set TMPDIR to a larger disk"
        raise StorageError(f"sorting {uri} in {tempfile.gettempdir()} failed: {error}; {cure}") from error


def _entries(path: Path, uri: str, column: str | None) -> Iterator[_Entry]:
    suffix = Path(name(uri).lower()).suffix
    if suffix == ".parquet":
        return _parquet_entries(path, uri, column)
    return _text_entries(path, uri) if suffix in TEXT_SUFFIXES else _csv_entries(path, uri, column)


def _sorted_portions(entries: Iterable[_Entry], uri: str, folder: Path) -> list[Path]:
    """Write the sources of a list to files, each of them in order of key, and return the files."""
    portions: list[Path] = []
    waiting: list[_Source] = []
    refused: ConfigError | None = None
    has_usable = False

    def write() -> None:
        waiting.sort()
        portions.append(folder / f"{len(portions)}.arrow")
        table = pa.table({column: [getattr(one, column) for one in waiting] for column in _COLUMNS})
        with pa.ipc.new_file(portions[-1], table.schema) as writer:
            writer.write_table(table, ROWS_PER_READ)
        waiting.clear()

    for entry in entries:
        if not entry.uri:
            raise ConfigError("input", uri, f"has an empty uri in {entry.place}", "remove it")
        try:
            text = resolve(entry.uri)
            waiting.append(_Source(entry.key or _default_key(text), text, "", entry.label))
            has_usable = True
        except ConfigError as error:
            shown = without_credentials(entry.uri).encode(errors="backslashreplace").decode()
            problem = f"the location {error.problem}; {error.cure}"
            waiting.append(_Source(entry.key or _default_key(shown), shown, problem, entry.label))
            refused = refused or ConfigError("input", uri, f"in {entry.place} {problem}", "")
        if len(waiting) == ROWS_PER_PORTION:
            write()
    if refused is not None and not has_usable:
        raise refused
    if waiting:
        write()
    return portions


def _merged(portions: list[Path], uri: str) -> Iterator[ObjectStat]:
    previous = None
    for source in heapq.merge(*map(_sources_in, portions)):
        if source.key == previous:
            cure = "name each source once, or give a list with a column key and distinct values in it"
            raise ConfigError("input", uri, f"contains the key {source.key!r} twice", cure)
        previous = source.key
        problem_type = "AccessDenied" if source.problem else None
        yield ObjectStat(source.uri, source.key, 0, "", problem_type, source.problem or None, source.label or None)


def _sources_in(portion: Path) -> Iterator[_Source]:
    with pa.OSFile(str(portion)) as opened:
        file = pa.ipc.open_file(opened)
        for number in range(file.num_record_batches):
            batch = file.get_batch(number)
            yield from map(_Source, *(batch.column(column).to_pylist() for column in _COLUMNS))


def _default_key(uri: str) -> str:
    """Return a location without its scheme; a URL may have empty components and dots, which a key may not."""
    if scheme(uri) == "file":
        return uri.lstrip("/")
    rest = uri.partition("://")[2]
    if scheme(uri) not in ("http", "https"):
        return rest
    return "/".join(f"_{part}" if part in ("", ".", "..") else part for part in rest.split("/"))


# Parquet


def _parquet_entries(path: Path, uri: str, label: str | None) -> Iterator[_Entry]:
    try:
        file = pq.ParquetFile(path)
        names = file.schema_arrow.names
        if "uri" not in names:
            raise ConfigError("input", uri, f"has no uri column, only {names}", "name the column uri")
        if label is not None and label not in names:
            raise _lacks(label, names, uri)
        twice = [name for name in ("uri", "key", label) if names.count(name) > 1]
        if twice:
            raise ConfigError("input", uri, f"has the column {twice[0]} twice", "remove one of them")
        columns = [name for name in dict.fromkeys(("uri", "key", label)) if name in names]
        for column in columns:
            _check_text(file.schema_arrow.field(column), uri)
        number = 0
        for batch in file.iter_batches(ROWS_PER_PORTION, columns=columns):
            absent = [None] * batch.num_rows
            keys = batch.column("key").to_pylist() if "key" in columns else absent
            labels = absent if label is None else batch.column(label).to_pylist()
            for text, key, value in zip(batch.column("uri").to_pylist(), keys, labels, strict=True):
                number += 1
                yield _Entry(f"row {number:,}", text, key, (value or "").strip())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        if isinstance(error, OSError) and error.errno:  # of the disk; Arrow's own about damaged files have none
            raise
        raise ConfigError("input", uri, f"is not a Parquet file ({error})", "give one with a uri column") from None


def _lacks(column: str, names: list[str], uri: str) -> ConfigError:
    return ConfigError("input", uri, f"has no column {column}, only {', '.join(names)}", "name one of its columns")


def _check_text(field: pa.Field, uri: str) -> None:
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    if not any(is_text(kind) for is_text in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)):
        raise ConfigError("input", uri, f"has values of type {kind} in the column {field.name}", "write text there")


# Text and CSV


def _text_entries(path: Path, uri: str) -> Iterator[_Entry]:
    """Yield one entry per line; blank lines and those that begin with ``#`` are skipped."""
    for number, line in enumerate(_lines(path, uri), 1):
        text = line.strip()
        if text and not text.startswith("#"):
            yield _Entry(f"line {number:,}", text, None)


def _csv_entries(path: Path, uri: str, label: str | None) -> Iterator[_Entry]:
    """Yield one entry per record after the header; blank lines and comments are skipped.

    A record of another length than the header is refused: a comma in a location without quotes would cut it.
    """
    reader = csv.reader(_lines(path, uri))
    header: list[str] = []
    try:
        for record in reader:
            is_comment = record[:1] and record[0].lstrip().startswith("#")
            if not any(record) or (is_comment and (not header or header[0] == "uri" or len(record) != len(header))):
                continue
            if not header:
                header = _checked_header([column.strip() for column in record], uri)
                if label is not None and label not in header:
                    raise _lacks(label, header, uri)
                if label is not None and header.count(label) > 1:
                    raise ConfigError("input", uri, f"has the column {label} twice", "remove one of them")
                continue
            place = f"line {reader.line_num:,}"
            if len(record) != len(header):
                problem = f"has {len(record)} values for {len(header)} columns in {place}"
                raise ConfigError("input", uri, problem, "put values with a comma into double quotes")
            row = dict(zip(header, record, strict=True))
            yield _Entry(place, row["uri"].strip(), row.get("key") or None, row[label].strip() if label else "")
    except csv.Error as error:
        problem = f"is not a CSV file (line {reader.line_num:,}: {error})"
        raise ConfigError("input", uri, problem, "give one with a uri column") from None
    if not header:
        raise ConfigError("input", uri, "is empty", "write a header with the column uri, and locations below it")


def _checked_header(header: list[str], uri: str) -> list[str]:
    if "uri" not in header:
        cure = "name the column uri in the first line, and separate columns by commas"
        raise ConfigError("input", uri, f"has no uri column, only {header}", cure)
    if header.count("uri") > 1 or header.count("key") > 1:
        raise ConfigError("input", uri, f"has a column twice in {header}", "remove one of them")
    return header


def _lines(path: Path, uri: str) -> Iterator[str]:
    """Yield the lines of a text file, each with its end; a mark of the byte order (Excel's) is left out."""
    number = 0
    with path.open(encoding="utf-8-sig", newline="") as file:
        try:
            while line := file.readline(LONGEST_LINE):
                number += 1
                if len(line) == LONGEST_LINE:
                    problem = f"has a line of more than {LONGEST_LINE:,} characters (line {number:,})"
                    raise ConfigError("input", uri, problem, "write one location per line")
                yield line
        except UnicodeDecodeError:
            problem = f"is not UTF-8 text (after line {number:,})"
            raise ConfigError("input", uri, problem, "save it as UTF-8; other lists are .parquet") from None
