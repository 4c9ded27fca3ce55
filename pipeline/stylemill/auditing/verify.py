"""Verification of a committed run against storage: its parts, plan, rows and objects.

Parts are checked by ``check_part``, as Ray tasks if this process is connected to Ray. Which objects a run owns is
compared by 64-bit hashes of their locations (see ``ownership``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

from stylemill.auditing.check_part import PartCheck, Problem, check_part
from stylemill.auditing.ownership import owned_hashes, superseding_hashes, unfinished_runs, unowned_objects
from stylemill.errors import StylemillError
from stylemill.manifest.commit import Part, Success, iter_shards
from stylemill.manifest.layout import RunLayout
from stylemill.manifest.read import load_history, load_success
from stylemill.storage import Storage, StorageOptions

MAX_PARTS_WITHOUT_RAY = 2
"""Manifests with at most this many parts are verified in this process: tasks on Ray would take longer to start."""
PARTS_IN_FLIGHT_PER_CPU = 2
"""Ray tasks per CPU of the cluster; each checks one part."""


@dataclass(kw_only=True)
class Verification:
    """Result of ``verify``."""

    layout: RunLayout
    success: Success
    num_rows: int = 0
    num_objects: int = 0
    num_bytes: int = 0
    num_superseded: int = 0
    """Missing or damaged objects of rows that later runs over the same sources replaced."""
    num_unfinished: int = 0
    """Objects that no committed run owns while other runs of the output are unfinished: they may be theirs."""
    problems: list[Problem] = field(default_factory=list)

    @property
    def is_sound(self) -> bool:
        """Whether no problem was found."""
        return not self.problems

    @property
    def broken_keys(self) -> frozenset[str]:
        """Sources whose results are missing or damaged; ``manifest repair`` paints them again."""
        return frozenset(problem.key for problem in self.problems if problem.key and problem.kind.startswith("Object"))


def verify(
    options: StorageOptions,
    layout: RunLayout,
    *,
    sample: float = 1.0,
    on_part: Callable[[int, int], None] | None = None,
    with_ray: bool = True,
) -> Verification:
    """Check every part, row and object of a committed run, and list objects that no committed run owns.

    Uses Ray tasks if this process is connected to Ray; otherwise checks the parts in this process.

    Args:
        options: how to reach storage.
        layout: of the run.
        sample: fraction of the objects whose content is read.
        on_part: called with the number of parts checked and the number of all parts.
        with_ray: False checks in this process in any case.

    Raises:
        ConfigError: the run is not committed.
        StorageError: storage failed beyond its retries.
    """
    storage = Storage(options)
    success = load_success(storage, layout)
    history = load_history(storage, layout.out)
    index = next(index for index, run in enumerate(history) if run.layout.run_id == layout.run_id)
    later = [run for run in history[index + 1 :] if run.success.input == success.input]
    superseded = superseding_hashes(storage, later)
    result = Verification(layout=layout, success=success)
    hashes = [owned_hashes(storage, [run for run in history if run.layout.run_id != layout.run_id])]
    for done, check in enumerate(_checks(options, layout, success, superseded, sample, with_ray=with_ray), 1):
        result.num_rows += check.num_rows
        result.num_objects += check.num_objects
        result.num_bytes += check.num_bytes
        result.num_superseded += check.num_superseded
        result.problems += check.problems
        hashes.append(check.output_hashes)
        if on_part:
            on_part(done, len(success.parts))
    listed = {_shard_of(part) for part in success.parts}
    for shard in iter_shards(storage, layout):
        if shard not in listed:
            detail = "_SUCCESS lists no part for this plan shard"
            result.problems.append(Problem(kind="PartUnlisted", uri=layout.plan_shard_uri(shard), detail=detail))
    owned = np.unique(np.concatenate(hashes))
    detail = "no committed run owns it; `stylemill manifest gc` removes such objects"
    unknown = [
        Problem(kind="UnknownObject", uri=found.uri, detail=detail)
        for tree in success.trees
        for found in unowned_objects(storage, layout.images_uri(tree), owned)
    ]
    if unknown and unfinished_runs(storage, layout.out):
        result.num_unfinished = len(unknown)
    else:
        result.problems += unknown
    return result


def _checks(
    options: StorageOptions,
    layout: RunLayout,
    success: Success,
    superseded: NDArray[np.uint64],
    sample: float,
    *,
    with_ray: bool,
) -> Iterator[PartCheck]:
    styles = [style["name"] for style in success.styles]
    if not with_ray or not ray.is_initialized():
        for part in success.parts:
            yield check_part(options, layout, _shard_of(part), part, styles, superseded, sample)
        return
    shared = ray.put(superseded)
    yield from _in_tasks(
        [(options, layout, _shard_of(part), part, styles, shared, sample) for part in success.parts],
    )


def _in_tasks(arguments: Sequence[tuple[Any, ...]]) -> Iterator[PartCheck]:
    task = ray.remote(check_part)
    in_flight = max(1, int(PARTS_IN_FLIGHT_PER_CPU * ray.cluster_resources().get("CPU", 1)))
    waiting = [task.remote(*argument) for argument in arguments[:in_flight]]
    todo = iter(arguments[in_flight:])
    while waiting:
        finished, waiting = ray.wait(waiting)
        try:
            check = ray.get(finished[0])
        except ray.exceptions.RayTaskError as error:
            raise error.cause if isinstance(error.cause, StylemillError) else error from error
        yield check
        following = next(todo, None)
        if following is not None:
            waiting.append(task.remote(*following))


def _shard_of(part: Part) -> int:
    return int(part.name.removeprefix("part-").removesuffix(".parquet"))
