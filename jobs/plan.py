"""``submit --dry-run``: what a job would read, how long it would take and what it would cost."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from jobs.terminal import LiveLine, duration
from pipeline.errors import ConfigError
from pipeline.submission.config import SubmitConfig, with_address_from
from pipeline.submission.request import JobRequest


def print_plan(request: JobRequest, config: SubmitConfig) -> int:
    """Print the plan of a request; nothing is submitted, and only what is to be read is listed."""
    print(f"plan of job {request.base_id}: {request.verb} -> {request.out} (nothing is submitted)")
    machines = _machines(config)
    if request.verb not in ("train", "stylize"):
        print("no estimate: this verb reads what its manifest lists")
        return 0
    from pipeline.submission import estimate

    line = LiveLine()
    try:
        work = estimate.count_sources(request.config, lambda count: line.show(f"{count:,} sources so far"))
    finally:
        line.close()
    workers = estimate.choose_workers(request.config, machines)
    print(f"sources:  {work.num_sources:,}, {size_text(work.num_bytes)}")
    if request.verb == "stylize":
        print(f"images:   {work.num_images:,} to paint ({len(request.config.model)} style(s))")
        if request.config.incremental or request.config.retry_failed:
            print("          at most: those that earlier runs finished are left out")
    else:
        print(f"images:   {work.num_images:,} through the network ({request.config.steps:,} steps)")
    each = f"{workers.units_each} {workers.unit}{'s' * (workers.units_each > 1)}"
    print(f"workers:  {workers.count:,} of {each} each")
    rate = estimate.Rate(images_per_s=config.rate, source="as stated") if config.rate else None
    rate = rate or estimate.measured_rate(request.config)
    if rate is None:
        print("time:     unknown, since nothing was painted into this output yet; state --rate, the images per second")
        print("          of one actor or training worker (a small run prints them)")
        return 0
    print(f"rate:     {rate.images_per_s:.3g} images/s of each, {rate.source}")
    found = estimate.estimate(work, rate, workers)
    print(f"time:     about {duration(found.wall_s)} once the workers have started")
    cost = ""
    if config.price_per_hour is not None:
        cost = f", at {config.price_per_hour:g} each {found.unit_hours * config.price_per_hour:,.2f}"
    print(f"cost:     {found.unit_hours:,.3g} {workers.unit}-hours{cost}")
    return 0


def _machines(config: SubmitConfig) -> Sequence[Mapping[str, float]]:
    """Return the cluster's machines; none if no cluster was named."""
    try:
        config = with_address_from(config, dict(os.environ))
    except ConfigError:
        print("cluster:  none named with --address; one worker is assumed where the config does not say more")
        return []
    from pipeline.capacity import total_of
    from pipeline.submission import cluster

    client = cluster.connect(config.address)
    machines = cluster.nodes_of(client, config.address)
    cpus, gpus = (int(total_of(machines, name)) for name in ("CPU", "GPU"))
    count = f"{len(machines):,} machine{'s' * (len(machines) != 1)}"
    print(f"cluster:  {config.address}: {count}, {cpus:,} CPUs, {gpus:,} GPUs")
    return machines


def size_text(num_bytes: int) -> str:
    """Return a size for people: ``1.2 TB``."""
    value, units = float(num_bytes), ["bytes", "kB", "MB", "GB", "TB", "PB"]
    while value >= 1000 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:,.0f} {units[0]}" if units[0] == "bytes" else f"{value:,.1f} {units[0]}"
