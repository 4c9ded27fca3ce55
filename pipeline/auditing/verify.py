"""Checking a committed run against storage."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import ray
from numpy.typing import NDArray

from pipeline.auditing.check_part import PartCheck, Problem, check_part, hash_uri
from pipeline.manifest.commit import Part, Success
from pipeline.manifest.layout import RunLayout
from pipeline.manifest.read import committed_runs, iter_parts, load_success
from pipeline.storage import Storage, StorageOptions

PARTS_IN_FLIGHT_PER_CPU = 2


@dataclass(kw_only=True)
class Verification:
    """What ``manifest verify`` found."""

    layout: RunLayout
    success: Success
    num_rows: int = 0
    num_objects: int = 0
    num_bytes: int = 0
    problems: list[Problem] = field(default_factory=list)

    @property
    def is_sound(self) -> bool:
        """Whether everything is as the manifest says."""
        return not self.problems


def verify(
    options: StorageOptions, layout: RunLayout, on_part: Callable[[int, int], None] | None = None
) -> Verification:
    """Check every part, row and object of a committed run, and look for objects that no committed run owns.

    Runs as Ray tasks where this process is connected to Ray, and in this process otherwise.

    Args:
        options: how to reach storage.
        layout: of the run.
        on_part: called with parts checked and parts in all.

    Raises:
        ConfigError: the run is not committed.
        StorageError: storage failed beyond its retries.
    """
    storage = Storage(options)
    success = load_success(storage, layout)
    result = Verification(layout=layout, success=success)
    hashes = [np.empty(0, np.uint64)]
    for done, check in enumerate(_checks(options, layout, success), 1):
        result.num_rows += check.num_rows
        result.num_objects += check.num_objects
        result.num_bytes += check.num_bytes
        result.problems += check.problems
        hashes.append(check.output_hashes)
        if on_part:
            on_part(done, len(success.parts))
    others = [run_id for run_id in committed_runs(storage, layout.out) if run_id != layout.run_id]
    hashes += [_owned(storage, RunLayout(out=layout.out, run_id=run_id)) for run_id in others]
    owned = np.unique(np.concatenate(hashes))
    for style in success.styles:
        result.problems += _unknown_objects(storage, layout.images_uri(style["name"]), owned)
    return result


def _checks(options: StorageOptions, layout: RunLayout, success: Success) -> Iterator[PartCheck]:
    styles = [style["name"] for style in success.styles]
    arguments = [(options, layout, _shard_of(part), part, styles, frozenset[int]()) for part in success.parts]
    if not ray.is_initialized():
        for argument in arguments:
            yield check_part(*argument)
        return
    task = ray.remote(check_part)
    in_flight = max(1, int(PARTS_IN_FLIGHT_PER_CPU * ray.cluster_resources().get("CPU", 1)))
    waiting = [task.remote(*argument) for argument in arguments[:in_flight]]
    todo = iter(arguments[in_flight:])
    while waiting:
        finished, waiting = ray.wait(waiting)
        yield ray.get(finished[0])
        following = next(todo, None)
        if following is not None:
            waiting.append(task.remote(*following))


def _shard_of(part: Part) -> int:
    return int(part.name.removeprefix("part-").removesuffix(".parquet"))


def _owned(storage: Storage, layout: RunLayout) -> NDArray[np.uint64]:
    """Return the hashes of the locations that a committed run's rows own."""
    found: list[int] = []
    for table in iter_parts(storage, layout, load_success(storage, layout)):
        found += [hash_uri(uri) for uri in table.column("output_uri").to_pylist() if uri]
    return np.array(found, np.uint64)


def _unknown_objects(storage: Storage, prefix: str, owned: NDArray[np.uint64]) -> Sequence[Problem]:
    problems = []
    for found in storage.list_objects(prefix):
        place = int(np.searchsorted(owned, np.uint64(hash_uri(found.uri))))
        if place == len(owned) or int(owned[place]) != hash_uri(found.uri):
            problems.append(Problem(kind="UnknownObject", uri=found.uri, detail="no committed run owns it"))
    return problems
