"""``stylemill stylize``: repaint a library."""

from __future__ import annotations

import logging
import sys
import warnings
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from stylemill.cli.arguments import parse
from stylemill.cli.output import result as add_result
from stylemill.cli.terminal import LiveLine, Steps, by_status, counts_text, duration, print_report
from stylemill.errors import NothingPainted, StylemillError
from stylemill.stylizing.config import StylizeConfig

if TYPE_CHECKING:
    from stylemill.manifest.commit import Success
    from stylemill.stylizing.identity import RunIdentity
    from stylemill.stylizing.liveness import Progress
    from stylemill.stylizing.local_workers import WorkerProcess
    from stylemill.stylizing.preflight import PreparedRun
    from stylemill.stylizing.run import BulkResult

log = logging.getLogger(__name__)

COMPARING_S = 20.0
"""Seconds that the command for a committed run looks for sources that are new since: some million of them."""


@dataclass(frozen=True, kw_only=True)
class StylizeCommand(StylizeConfig):
    """The settings of a run, and what the command does with them."""

    dry_run: bool = False
    """Print what would be painted, how long it takes on this machine and the disk it needs; write nothing."""


def main(arguments: Sequence[str]) -> int:
    """Run the verb; return 0 when done, 3 when more than ``max_failed_fraction`` of the sources failed.

    Raises:
        NothingPainted: the run is done, and there was not one image in the input.
    """
    command = parse(StylizeCommand, "stylize", "Repaint a library; running the same command again resumes.", arguments)
    if command is None:
        return 0
    config = StylizeConfig(**{field.name: getattr(command, field.name) for field in fields(StylizeConfig)})
    if command.dry_run:
        from stylemill.cli.preview import preview

        return preview(config)
    return run(config)


def run(config: StylizeConfig) -> int:
    """Paint, print progress and return the exit code."""
    with ExitStack() as stack:
        first_worker = None
        if config.may_run_locally:  # it imports torch while this process looks at the input
            from stylemill.stylizing.local_workers import WorkerProcess

            first_worker = WorkerProcess()
            stack.callback(first_worker.end)
        return _run(config, first_worker)


def _run(config: StylizeConfig, first_worker: WorkerProcess | None) -> int:
    from stylemill.stylizing.preflight import prepare

    prepared = prepare(config)
    print(f"run {prepared.layout.run_id}: {prepared.identity.input} -> {prepared.layout.out}", flush=True)
    for style in prepared.identity.styles:
        if style.folder != style.name:
            print(f"images/{style.name} has results of other settings or sources; these go to images/{style.folder}")
    paths = {"out": prepared.layout.out, "manifest": prepared.layout.manifest_uri}
    add_result(run_id=prepared.layout.run_id, paths=paths)
    if prepared.success is not None:
        add_result(is_already_committed=True, counts=by_status(prepared.success.counts))
        print(f"already committed at {prepared.success.finished_at}: {counts_text(prepared.success.counts)}")
        _tell_of_new_sources(config, prepared)
        _check_that_images_were_found(prepared.identity, prepared.success)
        return 0
    if prepared.runner == "local":
        result = paint(config, prepared, first_worker)
    else:
        from stylemill.cli.session import ray_session

        if first_worker is not None:
            first_worker.end()
        print("starting Ray ...", flush=True)
        with ray_session():
            result = paint(config, prepared)
    if result.already_committed:
        add_result(is_already_committed=True, run_id=result.success.run_id, counts=by_status(result.success.counts))
        print(f"nothing new since run {result.success.run_id}, committed at {result.success.finished_at}")
        return 0
    print_summary(result)
    write_report(config, result)
    _check_that_images_were_found(prepared.identity, result.success)
    if result.failed_fraction <= config.max_failed_fraction:
        return 0
    print(
        f"stylemill: {result.failed_fraction:.0%} of the images failed, more than max_failed_fraction "
        f"{config.max_failed_fraction:.0%}; the report lists them; once they are mended, add --retry-failed",
        file=sys.stderr,
    )
    return 3


def _tell_of_new_sources(config: StylizeConfig, prepared: PreparedRun) -> None:
    """Say how many sources the committed runs do not cover; say nothing if that cannot be told in a short time."""
    from stylemill.storage import Storage
    from stylemill.storage.options import preflight_options
    from stylemill.stylizing.incremental import find_unpainted

    storage = Storage(preflight_options(config.storage))
    try:
        new = find_unpainted(storage, prepared.layout.out, prepared.identity, within_s=COMPARING_S)
    except StylemillError as error:  # what was asked for is done
        log.info("new sources were not looked for: %s", error)
        return
    if not new.num_sources:
        return
    count = f"{new.num_sources:,} source{'s are' if new.num_sources > 1 else ' is'}"
    cure = "add --incremental to paint what is new"
    if config.incremental or config.run_id:
        cure = "use --incremental with another --run-id, or with none, to paint what is new"
    at_least = "" if new.is_complete else "at least "
    print(f"{at_least}{count} new or changed since, the first {new.first_key!r}: not painted; {cure}")


def _check_that_images_were_found(identity: RunIdentity, success: Success) -> None:
    """Raise an error if a run over a whole input found no image there: it was given something else."""
    counts = success.counts
    if identity.follow_up or counts.get("ok") or counts.get("failed"):
        return
    from stylemill.storage.uri import LIST_SUFFIXES

    reasons: Counter[str] = Counter()
    for part in success.parts:
        reasons.update(part.errors)
    why = ", ".join(f"{count:,} x {reason}" for reason, count in reasons.most_common(3))
    raise NothingPainted(
        f"nothing was painted: {identity.input} has no image, all {counts.get('skipped', 0):,} sources were skipped "
        f"({why}); give images, or a list of locations whose name ends in {', '.join(LIST_SUFFIXES)}"
    )


def paint(config: StylizeConfig, prepared: PreparedRun, first_worker: WorkerProcess | None = None) -> BulkResult:
    """Paint a prepared run and show its progress."""
    from stylemill.stylizing.run import stylize

    local_workers = None
    if prepared.runner == "local":
        from stylemill.stylizing.local_workers import choose_workers

        actors, threads = local_workers = choose_workers(config)
    else:
        from stylemill.stylizing.ray_pipeline import choose_num_actors

        actors, threads = choose_num_actors(config), config.threads_per_actor
    limit_pixels = prepared.largest_whole_pixels
    larger = "images that do not fit on the GPU are painted on the CPU, in tiles"
    if limit_pixels is not None:
        larger = f"images above {limit_pixels / 1e6:.1f} megapixels are painted in tiles"
    kind = "worker" if prepared.runner == "local" else "actor"
    print(
        f"{actors} {kind}{'s' * (actors > 1)} with {threads} thread{'s' * (threads > 1)}, "
        f"up to {config.paint.max_memory} each; {larger}",
        flush=True,
    )
    line = LiveLine()
    try:
        return stylize(
            prepared,
            lambda progress: line.show(progress_text(progress), steps_of(progress)),
            first_worker=first_worker,
            local_workers=local_workers,
        )
    finally:
        line.close()


def progress_text(progress: Progress) -> str:
    """Return the progress line: images done, rate, failures and time left."""
    done = progress.num_resumed + progress.num_finished
    failed = progress.counts.get("failed", 0)
    return (
        f"{done:,}/{progress.num_sources:,} images, {progress.images_per_s:.2f} images/s, {failed:,} failed, "
        f"{progress.counts.get('skipped', 0):,} skipped, {duration(progress.seconds_left)} left"
    )


def steps_of(progress: Progress) -> Steps:
    """Return the progress as figures for a bar."""
    return Steps(
        done=progress.num_resumed + progress.num_finished,
        total=progress.num_sources,
        unit="images",
        per_s=progress.images_per_s,
        failed=progress.counts.get("failed", 0),
        seconds_left=progress.seconds_left,
    )


def write_report(config: StylizeConfig, result: BulkResult) -> None:
    """Write the report of the run and print its location."""
    from stylemill.report.write import load_bulk_report, write_bulk_report
    from stylemill.storage import Storage

    storage = Storage(config.storage)
    warnings.simplefilter("ignore")  # Pillow's, about pictures that were painted anyway
    print_report(lambda: write_bulk_report(storage, result.layout, load_bulk_report(storage, result.layout)))


def print_summary(result: BulkResult) -> None:
    """Print the result of a run and the locations of its images and manifest."""
    progress = result.progress
    add_result(
        run_id=result.layout.run_id,
        counts=by_status(result.success.counts),
        errors=result.errors,
        num_resumed=progress.num_resumed,
        images_per_s=round(progress.images_per_s, 4),
        paths={
            "out": result.layout.out,
            "images": [result.layout.images_uri(tree) for tree in result.success.trees],
            "manifest": result.layout.manifest_uri,
        },
    )
    rate = (
        f" ({progress.images_per_s:.2f} images/s over {duration(progress.busy_s)})"
        if result.success.counts.get("ok")
        else ""
    )
    print(f"{counts_text(result.success.counts)} in {duration(result.wall_s)}{rate}")
    if progress.num_resumed:
        print(f"resumed: {progress.num_resumed:,} images had been finished before")
    for error_type, count in result.errors.items():
        print(f"  {count:,} x {error_type}")
    for tree in result.success.trees if result.success.counts.get("ok") else ():
        print(f"images:   {result.layout.images_uri(tree)}")
    print(f"manifest: {result.layout.manifest_uri}")
