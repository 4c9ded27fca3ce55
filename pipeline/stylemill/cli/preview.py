"""``stylize --dry-run``: print what a run would paint, how long that takes here and what it needs on disk."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from stylemill.cli.output import result
from stylemill.cli.terminal import LiveLine, by_status, counts_text, duration, size_text

if TYPE_CHECKING:
    from stylemill.stylizing.config import StylizeConfig
    from stylemill.stylizing.preflight import PreparedRun
    from stylemill.stylizing.preview import Survey
    from stylemill.submission.estimate import Workers

MAX_SUFFIXES = 8
"""Suffixes that are printed; the rest is summed up."""


def preview(config: StylizeConfig) -> int:
    """Print what a run would do; write nothing, start nothing, and return 0.

    Raises:
        ConfigError: what the run itself would refuse.
    """
    from stylemill.stylizing.preflight import check
    from stylemill.stylizing.preview import survey

    run, models = check(config)
    print(f"plan of run {run.layout.run_id}: {run.identity.input} -> {run.layout.out} (nothing is written)")
    result(is_dry_run=True, run_id=run.layout.run_id, paths={"out": run.layout.out})
    if run.success is not None:
        print(f"already committed at {run.success.finished_at}: {counts_text(run.success.counts)}")
        result(is_already_committed=True, counts=by_status(run.success.counts))
        return 0
    workers = _workers(run)
    threads = workers.units_each if workers.unit == "CPU" else run.config.threads_per_actor
    line = LiveLine()
    try:
        found = survey(run, models, threads, lambda count: line.show(f"{count:,} sources so far"))
    finally:
        line.close()
    _print_sources(found)
    if found.num_images:
        _print_estimate(run, found, workers, len(models))
    return 0


def _print_sources(found: Survey) -> None:
    print(f"sources:  {found.num_sources:,} to paint, {size_text(found.num_bytes)}; {found.num_done:,} are done")
    common = [f"{count:,} {suffix}" for suffix, count in found.suffixes.most_common(MAX_SUFFIXES)]
    rest = found.num_sources - sum(count for _, count in found.suffixes.most_common(MAX_SUFFIXES))
    if common:
        print(f"suffixes: {', '.join([*common, f'{rest:,} others'] if rest else common)}")
    counts = {"sources": found.num_sources, "bytes": found.num_bytes, "done": found.num_done}
    skipped = found.num_sampled - found.num_images - found.num_failed
    sample = {"sources": found.num_sampled, "images": found.num_images, "failed": found.num_failed, "skipped": skipped}
    result(counts=counts, suffixes=dict(found.suffixes), sample=sample, sample_errors=dict(found.reasons))
    if not found.num_sampled:
        return
    kinds = f"{found.num_images:,} images, {found.num_failed:,} damaged, {skipped:,} no images"
    reasons = ", ".join(f"{count:,} x {reason}" for reason, count in found.reasons.most_common())
    print(f"sample:   {found.num_sampled:,} decoded: {kinds}{f' ({reasons})' if reasons else ''}")


def _print_estimate(run: PreparedRun, found: Survey, workers: Workers, num_styles: int) -> None:
    from stylemill.submission.estimate import Rate, Workload, estimate

    out = run.layout.out
    num_images = round(found.num_sources * found.image_fraction)
    megapixels = num_images * found.megapixels
    work = Workload(num_sources=found.num_sources, num_bytes=found.num_bytes, num_images=num_images)
    rate = Rate(images_per_s=1 / found.seconds_per_image, source="measured now")
    time_s = estimate(work, rate, workers).wall_s
    output_bytes = round(megapixels * found.bytes_per_megapixel)
    each_in = "one of" if run.config.style_by else "each of"
    styles = f" in {each_in} {num_styles} styles" * (num_styles > 1)
    print(f"images:   about {num_images:,} of {found.megapixels:.2f} megapixels, {megapixels:,.1f} in all{styles}")
    kind = "worker" if run.runner == "local" else "actor"
    each = f"{workers.count:,} {kind}{'s' * (workers.count > 1)} of {workers.units_each} {workers.unit}"
    print(
        f"speed:    {found.seconds_per_image:.2f} s for an image, measured on this machine with one {kind} "
        f"({found.paint_s_per_megapixel:.3f} s per megapixel in the network, {found.precision})"
    )
    if workers.unit == "GPU":
        print("time:     unknown: only the CPU is measured; a small run on the GPU prints its rate")
    else:
        start = "plus some seconds to start" if run.runner == "local" else "once Ray has started"
        print(f"time:     about {duration(max(time_s, 1.0))} with {each}, {start}")
    free = _free_bytes(out)
    print(f"disk:     about {size_text(output_bytes)}{'' if free is None else f', {size_text(free)} are free'}")
    result(
        estimate={
            "images": num_images,
            "megapixels": round(megapixels, 2),
            "seconds_per_image": found.seconds_per_image,
            "num_actors": workers.count,
            "seconds": None if workers.unit == "GPU" else round(time_s, 1),
            "output_bytes": output_bytes,
            "free_bytes": free,
        }
    )


def _workers(run: PreparedRun) -> Workers:
    """Return what would paint here: the workers of a local run, or the actors of a cluster on this machine."""
    from stylemill.submission.estimate import Workers, choose_workers

    if run.runner == "local":
        from stylemill.stylizing.local_workers import choose_workers as choose_local_workers

        count, threads = choose_local_workers(run.config)
        return Workers(count=count, unit="CPU", units_each=threads)
    from stylemill.machines import this_machine

    return choose_workers(run.config, [this_machine()])


def _free_bytes(out: str) -> int | None:
    """Return the free space where a local output will be; None for an object store."""
    from stylemill.storage.uri import scheme

    if scheme(out) != "file":
        return None
    folder = Path(out)
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
