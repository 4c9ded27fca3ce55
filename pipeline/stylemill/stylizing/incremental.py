"""Incremental runs: they paint some of the sources of committed runs again, and have the newest one as parent.

There are three kinds: ``incremental`` paints new and changed sources, ``retry_failed`` failed ones, and ``repair``
those whose results are missing or damaged. All of them stream the sources and the newest committed rows in order of
key, with one manifest part of each run in memory.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from stylemill.manifest.layout import RunLayout
from stylemill.manifest.read import CommittedRun, Row, load_history, newest_rows
from stylemill.storage import ObjectStat, Storage
from stylemill.storage.sources import find_sources
from stylemill.stylizing.identity import IncrementalKind, RunIdentity
from stylemill.stylizing.plan import UNKNOWN_STYLE, Finder, Source, TwinFinder

log = logging.getLogger(__name__)

MAX_DELETED_KEYS = 100_000
"""Maximum number of keys that the list of deleted sources contains."""


def incremental_identity(
    kind: IncrementalKind,
    identity: RunIdentity,
    runs: Sequence[CommittedRun],
    run_id: str | None = None,
    extra: str = "",
) -> RunIdentity:
    """Return the identity of an incremental run.

    The default run id stays the same until the run is committed; the next incremental run gets another one.

    Args:
        kind: of the run.
        identity: of a run over all sources with the same settings.
        runs: committed runs, oldest first; the last is the parent.
        run_id: the id that the user gave, if any.
        extra: hashed into the default run id as well.
    """
    text = "\n".join([kind, identity.run_id, *sorted(run.success.run_id for run in runs), extra])
    return replace(
        identity,
        run_id=run_id or hashlib.sha256(text.encode()).hexdigest()[:16],
        parent_run_id=runs[-1].success.run_id,
        follow_up=kind,
    )


def make_finder(
    storage: Storage,
    layout: RunLayout,
    identity: RunIdentity,
    runs: Sequence[CommittedRun],
    broken_keys: Collection[str],
) -> Finder:
    """Return the function that finds the sources of a run, incremental or not.

    Args:
        storage: where the run is.
        layout: of the run.
        identity: of the run.
        runs: committed runs over the same sources, oldest first.
        broken_keys: sources that a ``repair`` run paints again.
    """
    rule, styles = identity.style_rule, [style.name for style in identity.styles]

    def find_all(after: str, twins: TwinFinder) -> Iterator[Source]:
        for found in find_sources(storage, identity.input, after, column=rule.column):
            source = twins.add(found)
            source.style, source.style_problem = rule.choose(found, styles)
            yield source

    def find_some(after: str, twins: TwinFinder) -> Iterator[Source]:
        del twins  # each function below passes every key to its own TwinFinder
        if identity.follow_up == "incremental":
            deleted = _Deleted()
            listing = find_sources(storage, identity.input, column=rule.column)
            yield from _after_key(after, changed_sources(storage, identity, runs, listing, deleted.add))
            deleted.report(storage, layout)
        elif identity.follow_up == "retry_failed":
            yield from _after_key(after, failed_sources(storage, identity, runs))
        else:
            yield from _after_key(
                after, known_sources(storage, identity, runs, lambda rows: rows[0]["key"] in broken_keys)
            )

    return find_some if identity.follow_up else find_all


def _after_key(after: str, sources: Iterable[Source]) -> Iterator[Source]:
    return (source for source in sources if source.found.key > after)


class _Deleted:
    """Sources that were painted before and no longer exist: their number, and the first keys."""

    def __init__(self) -> None:
        self._keys: list[str] = []
        self._count = 0

    def add(self, key: str) -> None:
        self._count += 1
        if len(self._keys) < MAX_DELETED_KEYS:
            self._keys.append(key)

    def report(self, storage: Storage, layout: RunLayout) -> None:
        if self._count:
            log.warning("%d painted sources no longer exist; see %s", self._count, layout.deleted_uri)
            tree = {"num_deleted": self._count, "keys": self._keys}
            storage.write_bytes(layout.deleted_uri, json.dumps(tree, indent=1, ensure_ascii=False).encode())


def changed_sources(
    storage: Storage,
    identity: RunIdentity,
    runs: Sequence[CommittedRun],
    listing: Iterable[ObjectStat],
    on_deleted: Callable[[str], None],
) -> Iterator[Source]:
    """Yield sources that are new or changed since the committed runs, in order of key.

    A source is unchanged if, for every style, its newest row has this fingerprint and the source's current etag. An
    unchanged source is painted again as well if one of its twins is, because the twin's result may take its name.

    Args:
        storage: where the runs are.
        identity: of the new run.
        runs: committed runs over the same input, oldest first.
        listing: all sources as they are now, in order of key.
        on_deleted: called with each key that was painted before and no longer exists.
    """
    fingerprints = {style.name: style.fingerprint for style in identity.styles}
    rule, styles, twins = identity.style_rule, list(fingerprints), TwinFinder()
    known = newest_rows(storage, runs, list(fingerprints), of_newest_run=rule.by is not None)
    for found, rows in _outer_join(listing, known):
        if found is None:
            on_deleted(rows[0]["key"])
            continue
        source = twins.add(found)
        source.style, source.style_problem = rule.choose(found, styles)
        wanted = fingerprints if source.style is None else {source.style: fingerprints[source.style]}
        is_refused = any(row["error_type"] == UNKNOWN_STYLE for row in rows)
        is_done = _is_done(found, rows, wanted) and is_refused == (source.style_problem is not None)
        source.is_planned = any(twin.is_planned for twin in source.twins) or not is_done
        if source.is_planned:
            yield source


@dataclass(frozen=True, kw_only=True)
class Unpainted:
    """Sources that are new or changed since the committed runs of an output."""

    num_sources: int
    first_key: str
    """Of the first of them; empty if there is none."""
    is_complete: bool
    """Whether all sources were looked at."""


def find_unpainted(storage: Storage, out: str, identity: RunIdentity, *, within_s: float) -> Unpainted:
    """Return what an incremental run with these settings would paint.

    Args:
        storage: where sources and output are.
        out: resolved output location.
        identity: of a committed run over the sources.
        within_s: seconds after which no further source is looked at.

    Raises:
        ConfigError: the input is a list that has become unusable.
        StorageError: a listing or a manifest cannot be read.
    """
    deadline_s = time.monotonic() + within_s

    def listing() -> Iterator[ObjectStat]:
        for found in find_sources(storage, identity.input, column=identity.style_rule.column):
            if time.monotonic() > deadline_s:
                raise TimeoutError
            yield found

    num_sources, first_key = 0, ""
    try:
        history = load_history(storage, out, identity.input)
        for source in changed_sources(storage, identity, history, listing(), lambda _: None):
            first_key = first_key or source.found.key
            num_sources += 1
    except TimeoutError:
        return Unpainted(num_sources=num_sources, first_key=first_key, is_complete=False)
    return Unpainted(num_sources=num_sources, first_key=first_key, is_complete=True)


def known_sources(
    storage: Storage, identity: RunIdentity, runs: Sequence[CommittedRun], wanted: Callable[[list[Row]], bool]
) -> Iterator[Source]:
    """Yield the sources of committed runs whose newest rows are ``wanted``; their attempts continue to count.

    Each is painted in the style that it had.
    """
    rule, styles, twins = identity.style_rule, [style.name for style in identity.styles], TwinFinder()
    for key, rows in newest_rows(storage, runs, styles, of_newest_run=rule.by is not None):
        row = max(rows, key=lambda row: row["attempt"])
        label = None if row["error_type"] == UNKNOWN_STYLE else row["style"]
        found = ObjectStat(row["source_uri"], key, row["source_bytes"] or 0, row["source_etag"] or "", label=label)
        source = twins.add(found)
        source.style, source.style_problem = rule.choose(found, styles)
        source.attempt = row["attempt"] + 1
        if wanted(rows):
            yield source


def failed_sources(storage: Storage, identity: RunIdentity, runs: Sequence[CommittedRun]) -> Iterator[Source]:
    """Yield the sources that failed in committed runs, each in the style that its list names now, if that decides."""
    failed = known_sources(storage, identity, runs, has_failed)
    rule, styles = identity.style_rule, [style.name for style in identity.styles]
    if rule.column is None:
        yield from failed
        return
    listing = find_sources(storage, identity.input, column=rule.column)
    waiting = next(listing, None)
    for source in failed:
        while waiting is not None and waiting.key < source.found.key:
            waiting = next(listing, None)
        if waiting is not None and waiting.key == source.found.key:  # else it is no longer listed
            source.style, source.style_problem = rule.choose(waiting, styles)
            yield source


def has_failed(rows: list[Row]) -> bool:
    """Return whether a source failed in any style, and is not a folder: what that holds, only a listing finds."""
    return any(row["status"] == "failed" for row in rows) and not rows[0]["key"].endswith("/")


def _is_done(found: ObjectStat, rows: Sequence[Row], fingerprints: dict[str, str]) -> bool:
    done: dict[str, Any] = {row["style"]: row for row in rows}
    return all(
        style in done and done[style]["fingerprint"] == fingerprint and done[style]["source_etag"] == found.etag
        for style, fingerprint in fingerprints.items()
    )


def _outer_join(
    listing: Iterable[ObjectStat], known: Iterable[tuple[str, list[Row]]]
) -> Iterator[tuple[ObjectStat | None, list[Row]]]:
    """Join two streams that are in order of key; yield every item of both once."""
    rows = iter(known)
    waiting = next(rows, None)
    for found in listing:
        while waiting is not None and waiting[0] < found.key:
            yield None, waiting[1]
            waiting = next(rows, None)
        if waiting is not None and waiting[0] == found.key:
            yield found, waiting[1]
            waiting = next(rows, None)
        else:
            yield found, []
    while waiting is not None:
        yield None, waiting[1]
        waiting = next(rows, None)
