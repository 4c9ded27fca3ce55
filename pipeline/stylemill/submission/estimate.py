"""Estimates for ``submit --dry-run``: how much a verb reads, and how long that takes at a given rate.

The rate is what the user states, or what an earlier run into the same output measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from stylemill.config import from_mapping, parse_yaml
from stylemill.errors import ConfigError, StorageError, StylemillError
from stylemill.machines import Resources, how_many_fit, total_of
from stylemill.manifest.read import iter_parts, load_history
from stylemill.manifest.schema import read_parquet
from stylemill.storage import Storage
from stylemill.storage.options import preflight_options
from stylemill.storage.sources import find_sources
from stylemill.style_choice import choose_styles
from stylemill.stylizing.config import StylizeConfig
from stylemill.training.config import TrainConfig
from stylemill.training.layout import TrainLayout

REPORT_EVERY = 10_000
"""Sources between two calls of ``on_count``."""
MAX_ROWS = 20_000
"""Rows of an earlier run that are read for its rate."""


@dataclass(frozen=True, kw_only=True)
class Rate:
    """Images per second of one actor or training worker, and the origin of the figure."""

    images_per_s: float
    source: str


@dataclass(frozen=True, kw_only=True)
class Workload:
    """The work of a verb."""

    num_sources: int
    num_bytes: int
    num_images: int
    """Images through the network: sources times styles, or steps times batch."""
    num_styles: int = 1
    """Of a bulk run."""


@dataclass(frozen=True, kw_only=True)
class Workers:
    """The actors or training workers that do the work."""

    count: int
    units_each: int
    """CPUs, or GPUs, that each reserves."""
    unit: str
    """``CPU`` or ``GPU``."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """How long a workload takes, without the start of the workers."""

    wall_s: float
    unit_hours: float


def estimate(work: Workload, rate: Rate, workers: Workers) -> Estimate:
    """Return wall time and CPU- or GPU-hours of a workload."""
    busy_s = work.num_images / rate.images_per_s
    return Estimate(wall_s=busy_s / workers.count, unit_hours=busy_s * workers.units_each / 3600)


def count_sources(
    config: StylizeConfig | TrainConfig, on_count: Callable[[int], None] = lambda count: None
) -> Workload:
    """Count what a verb will read, by listing it with this machine's credentials.

    Args:
        config: with resolved locations.
        on_count: called now and then with the number of sources so far.

    Raises:
        ConfigError: a location cannot be listed, or holds no sources.
    """
    field, locations = ("input", (config.input,)) if isinstance(config, StylizeConfig) else ("content", config.content)
    storage = Storage(preflight_options(config.storage))
    num_sources = num_bytes = 0
    for location in locations:
        try:
            for found in find_sources(storage, location):
                num_sources, num_bytes = num_sources + 1, num_bytes + found.size_bytes
                if num_sources % REPORT_EVERY == 0:
                    on_count(num_sources)
        except StorageError as error:
            cure = "check the location; --dry-run lists it with the credentials of this machine"
            raise ConfigError(field, location, f"cannot be listed ({error})", cure) from None
    if not num_sources:
        raise ConfigError(field, locations[0], "holds no sources", "give a prefix, glob or file that holds some")
    if isinstance(config, StylizeConfig):
        styles = _count_styles(storage, config)
        return Workload(
            num_sources=num_sources, num_bytes=num_bytes, num_images=num_sources * styles, num_styles=styles
        )
    return Workload(num_sources=num_sources, num_bytes=num_bytes, num_images=config.steps * config.batch_size)


def _count_styles(storage: Storage, config: StylizeConfig) -> int:
    """Return the number of styles that a run paints; one for each model that only the cluster can read."""
    if config.style_by:
        return 1
    if config.style:
        return len(config.style)
    try:
        return len(choose_styles(storage, config.model, config.registry))
    except StylemillError:  # the job itself checks its models
        return len(config.model)


def choose_workers(config: StylizeConfig | TrainConfig, machines: Sequence[Resources]) -> Workers:
    """Return the workers of the config, else as many as fit on the machines, else one."""
    device = config.paint.device if isinstance(config, StylizeConfig) else config.device
    unit = "GPU" if device == "cuda" else "CPU"
    if isinstance(config, StylizeConfig):
        each = 1 if unit == "GPU" else config.threads_per_actor
        need = {"CPU": config.threads_per_actor, "memory": config.paint.max_memory_bytes, "GPU": float(unit == "GPU")}
        fits = how_many_fit(machines, need)
        return Workers(count=min(fits or 1, config.num_actors or fits or 1), units_each=each, unit=unit)
    low, high = config.worker_range
    cpus = config.cpus_per_worker or max(1, int(total_of(machines, "CPU")) // high)
    fits = how_many_fit(machines, {"CPU": cpus, "GPU": float(unit == "GPU")})
    count = min(high, max(low, fits))
    return Workers(count=count, units_each=1 if unit == "GPU" else cpus, unit=unit)


def measured_rate(config: StylizeConfig | TrainConfig) -> Rate | None:
    """Return the rate of the newest run into the same output, or None if there is no such run."""
    storage = Storage(preflight_options(config.storage))
    try:
        return (
            _rate_of_bulk(storage, config) if isinstance(config, StylizeConfig) else _rate_of_training(storage, config)
        )
    except StorageError:
        return None


def _rate_of_bulk(storage: Storage, config: StylizeConfig) -> Rate | None:
    """Return the rate from the time per image in the actor: decoding, network and encoding share its CPU."""
    runs = load_history(storage, config.out)
    if not runs:
        return None
    columns = ["stylize_ms"] if config.paint.device == "cuda" else ["decode_ms", "stylize_ms", "encode_ms"]
    run, num_rows, total_ms = runs[-1], 0, 0.0
    for table in iter_parts(storage, run.layout, run.success):
        painted = table.filter(pc.equal(table.column("status"), "ok"))
        num_rows += painted.num_rows
        total_ms += sum(pc.sum(painted.column(name)).as_py() or 0.0 for name in columns)
        if num_rows >= MAX_ROWS:
            break
    if not total_ms:
        return None
    return Rate(
        images_per_s=1000 * num_rows / total_ms, source=f"measured over {num_rows:,} images of run {run.success.run_id}"
    )


def _rate_of_training(storage: Storage, config: TrainConfig) -> Rate | None:
    """Return the median rate of the steps in OUT/metrics.parquet, divided by the workers of that run."""
    layout = TrainLayout(config.out)
    table = read_parquet(storage.read_bytes(layout.metrics_uri), ["images_per_s"])
    median = pc.quantile(table.column("images_per_s").cast(pa.float64()), 0.5)[0].as_py()
    if not median:
        return None
    earlier = from_mapping(
        TrainConfig, parse_yaml(storage.read_bytes(layout.config_uri).decode(), source=layout.config_uri)
    )
    num_workers = replace(config, num_workers=earlier.num_workers).worker_range[0]
    return Rate(images_per_s=median / num_workers, source=f"measured over {table.num_rows:,} steps in {config.out}")
