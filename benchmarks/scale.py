"""What the machinery around the network can carry, and how it grows: planning, scheduling, rows, parts, commit.

    python benchmarks/scale.py --sources 100000                     rows only: no image is read, painted or written
    python benchmarks/scale.py --sources 10000 --images             tiny images, read, decoded, encoded and put
    python benchmarks/scale.py --sources 100000 --without-ray       plan, rows, parts and commit in one process
    python benchmarks/scale.py --arithmetic --price-per-hour 0.05   what 10^8 images take, from figures given as flags

**A simulation.** Something stands in for the network on purpose: what is measured is all the rest. With ``--images``
it is the product's own ``--strength 0``, which gives back the source, over 16 px JPEGs. Without, an actor stands in
for reading, painting and writing as well: it takes the blocks of the plan as the real one does and flushes the same
rows, so that the driver sees a million sources in minutes. Everything else is what a bulk run runs: plan shards,
groups of shards, Ray Data, the tracker, leases, pending rows, parts with their digests, ``_SUCCESS``; on a Ray cluster
of this machine and a local disk. ``--without-ray`` leaves scheduling out too: one process plans, flushes rows and
commits.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from stylemill.cli.session import ray_session
from stylemill.images.options import DecodeOptions
from stylemill.manifest.commit import commit_part, unfinished_sources
from stylemill.manifest.layout import RunLayout
from stylemill.nn.transformer_net import Architecture, TransformerNet
from stylemill.painting.options import PaintOptions
from stylemill.process import periodically
from stylemill.storage import Storage, join
from stylemill.storage.lease import acquire
from stylemill.style_model import StyleModel, to_bytes
from stylemill.stylizing import ray_pipeline
from stylemill.stylizing.config import StylizeConfig
from stylemill.stylizing.identity import BulkJob, StyleRef
from stylemill.stylizing.incremental import make_finder
from stylemill.stylizing.liveness import Progress, WorkerReports
from stylemill.stylizing.plan import plan_sources
from stylemill.stylizing.preflight import prepare
from stylemill.stylizing.quarantine import remaining_work
from stylemill.stylizing.run import stylize
from stylemill.stylizing.sample import Sample, manifest_row
from stylemill.stylizing.write import Flusher

PER_FOLDER = 1000


class RowActor:
    """Stands in for ``BulkActor``: the same protocol and the same rows, but no image is read or painted."""

    def __init__(self, job: BulkJob, tracker: Any) -> None:
        self._storage = Storage(job.config.storage)
        self._job, self._tracker = job, tracker
        self._reports = WorkerReports(tracker)

    def __call__(self, block: pa.Table) -> pa.Table:
        """Write the rows of one block."""
        shard = block.column("shard")[0].as_py()
        planned = block.drop_columns(["shard"]).to_pylist()
        todo, _ = remaining_work(self._storage, self._job.layout, shard, planned, self._tracker)
        flusher = Flusher(self._storage, self._job.layout, shard, self._job.lease(self._storage))
        for row in todo:
            self._reports.begin(row["key"])
            flusher.add([self._row(row, style) for style in self._job.identity.styles])
            self._reports.finish(row["key"], ["ok"])
        self._reports.flush()
        flusher.flush()
        return pa.table({"shard": [shard], "num_done": [len(todo)]})

    def _row(self, planned: dict[str, Any], style: Any) -> dict[str, Any]:
        return simulated_row(self._job.layout, self._job.identity.run_id, planned, style)


def simulated_row(layout: RunLayout, run_id: str, planned: dict[str, Any], style: StyleRef) -> dict[str, Any]:
    """Return a row of the usual length for an image that was not painted."""
    digest = hashlib.sha256(planned["key"].encode()).hexdigest()
    sample = Sample(planned=planned, source_bytes=100_000, source_sha256=digest, source_format="jpeg")
    uri = join(layout.images_uri(style.name), planned["key"])
    return manifest_row(
        sample, style, run_id, status="ok", output_uri=uri, output_bytes=100_000,
        output_sha256=digest, output_format="jpeg", width_px=640, height_px=480, forward="whole",
        stylize_ms=1.0, encode_ms=1.0,
    )  # fmt: skip


class Watch:
    """The driver's resident memory and the object store during a run."""

    def __init__(self) -> None:
        self.samples: list[tuple[int, float]] = []
        self.object_store_mb = 0.0
        self._finished = 0

    def show(self, progress: Progress) -> None:
        """Take in how far the run is."""
        self._finished = progress.num_finished

    def sample(self) -> None:
        """Take in the memory as it is now."""
        import ray

        self.samples.append((self._finished, resident_mb()))
        total = ray.cluster_resources().get("object_store_memory", 0)
        used = total - ray.available_resources().get("object_store_memory", total)
        self.object_store_mb = max(self.object_store_mb, used / 2**20)

    def at(self, share: float) -> float:
        """Return the driver's resident megabytes when so much of the run was done."""
        goal = share * self._finished
        return next((mb for finished, mb in self.samples if finished >= goal), self.samples[-1][1])


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def write_model(folder: Path) -> str:
    network = TransformerNet(Architecture(width=0.1))
    network.init_weights(0)
    model = StyleModel(
        name="identity", version="0", architecture=network.architecture, state_dict=network.state_dict(), metadata={}
    )
    path = folder / "style.safetensors"
    path.write_bytes(to_bytes(model))
    return str(path)


def write_images(folder: Path, count: int) -> str:
    """Write 16 px JPEGs, all different."""
    pixels = np.random.default_rng(0).integers(0, 256, (256, 16, 16, 3), dtype=np.uint8)
    for number in range(count):
        place = folder / "library" / f"{number // PER_FOLDER:05d}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[number % 256]).save(place / f"{number:09d}.jpg", comment=str(number).encode())
    return str(folder / "library")


def write_list(folder: Path, count: int) -> str:
    """Write a Parquet file of sources that do not exist."""
    keys = [f"{number // PER_FOLDER:05d}/{number:09d}.jpg" for number in range(count)]
    path = folder / "sources.parquet"
    pq.write_table(pa.table({"uri": [f"{folder}/nowhere/{key}" for key in keys], "key": keys}), path)
    return str(path)


def simulate(count: int, *, with_images: bool, num_actors: int) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        config = StylizeConfig(
            model=(write_model(folder),),
            input=write_images(folder, count) if with_images else write_list(folder, count),
            out=str(folder / "out"),
            num_actors=num_actors,
            paint=PaintOptions(strength=0.0, max_memory="1GiB"),
            runner="ray",
            decode=DecodeOptions(isolate_decoding=True),
        )
        if not with_images:
            ray_pipeline.RayBulkActor = RowActor  # type: ignore[misc]
        with ray_session():
            start_s, before_mb = time.perf_counter(), resident_mb()
            watch = Watch()
            with periodically(watch.sample, 1.0):
                result = stylize(prepare(config), on_progress=watch.show)
            wall_s = time.perf_counter() - start_s
        out = folder / "out"
        plan = [path.stat().st_size for path in Path(result.layout.plan_uri).iterdir()]
        parts = [path.stat().st_size for path in Path(result.layout.manifest_uri).glob("part-*")]
        success = Path(result.layout.manifest_uri, "_SUCCESS").stat().st_size
    assert result.success.counts == {"ok": count}, result.success.counts
    busy_s = result.progress.busy_s
    print(f"{count:,} sources, {num_actors} actors, {'tiny images' if with_images else 'rows only'}, in {out.name}/")
    print(
        f"  whole {wall_s:.1f} s: {count / wall_s:,.0f} sources/s; from first to last {count / busy_s:,.0f} sources/s"
    )
    quarters = ", ".join(f"{watch.at(share):.0f}" for share in (0.25, 0.5, 0.75, 1.0))
    print(
        f"  driver RSS {before_mb:.0f} MB before, {quarters} MB at each quarter; "
        f"object store {watch.object_store_mb:.1f} MB"
    )
    print(f"  plan {len(plan)} files, {sum(plan) / count:.1f} bytes a source; manifest {len(parts)} parts,", end=" ")
    print(f"{sum(parts) / count:.1f} bytes a row; _SUCCESS {success:,} bytes")


def simulate_without_ray(count: int) -> None:
    """Plan, flush and commit in this process; RSS is what one process that does all of it holds."""
    with tempfile.TemporaryDirectory() as scratch:
        folder, storage = Path(scratch), Storage()
        config = StylizeConfig(model=(write_model(folder),), input=write_list(folder, count), out=str(folder / "out"))
        run = prepare(config)
        layout, (style,) = run.layout, run.identity.styles
        finder = make_finder(storage, layout, run.identity, (), frozenset())
        samples, parts, start_s = [resident_mb()], [], time.perf_counter()
        with acquire(storage, layout.lease_uri, on_wait=print) as lease:
            shards = list(plan_sources(storage, layout, finder))
            planned_s = time.perf_counter() - start_s
            commit_s = 0.0
            for shard, _ in shards:
                flusher = Flusher(storage, layout, shard, lease)
                for row in unfinished_sources(storage, layout, shard).to_pylist():
                    flusher.add([simulated_row(layout, layout.run_id, row, style)])
                flusher.flush()
                before_s = time.perf_counter()
                part = commit_part(storage, layout, shard, [style.name])
                assert part is not None, "rows are missing"
                parts.append(part)
                commit_s += time.perf_counter() - before_s
                samples.append(resident_mb())
        wall_s = time.perf_counter() - start_s
        assert sum(part.counts["ok"] for part in parts) == count
        plan_bytes = sum(path.stat().st_size for path in Path(layout.plan_uri).iterdir())
        part_bytes = sum(path.stat().st_size for path in Path(layout.manifest_uri).glob("part-*"))
    print(f"{count:,} sources without Ray: {count / wall_s:,.0f} sources/s in {wall_s:.1f} s")
    print(f"  planning {count / planned_s:,.0f} sources/s; committing {count / commit_s:,.0f} rows/s of the driver")
    quarters = ", ".join(f"{samples[round(share * (len(samples) - 1))]:.0f}" for share in (0, 0.25, 0.5, 0.75, 1))
    print(f"  RSS {quarters} MB at the start and after each quarter")
    print(f"  plan {plan_bytes / count:.1f} bytes a source, {len(parts)} parts of {part_bytes / count:.1f} bytes a row")


def arithmetic(images: int, options: argparse.Namespace) -> None:
    """Print what this number of images takes; every factor is a flag whose default was measured (docs/scaling.md)."""
    shards = -(-images // 4096)
    rows = [
        ("listing", f"{images / options.listing_rate / 3600:.1f} h of the driver, while painting continues"),
        ("plan", f"{images * options.plan_bytes / 2**30:.2f} GiB in {shards:,} shards"),
        ("manifest", f"{images * options.row_bytes / 2**30:.1f} GiB in {shards:,} parts"),
        ("_SUCCESS", f"{shards * options.success_bytes / 2**20:.1f} MiB"),
        ("pending objects", f"{images // 32:,} until the commit"),
    ]
    for name, cost, unit in (("CPU", options.cpu_s, "CPU-hours"), ("GPU", options.gpu_s, "GPU-hours")):
        if cost is not None:
            hours = images * cost / 3600
            price = f", {hours * options.price_per_hour:,.0f} in all" if options.price_per_hour is not None else ""
            rows.append((name, f"{hours * 1e6 / images:,.1f} {unit} per million, {hours:,.0f} in all{price}"))
    if options.workers:
        rate = options.workers / options.cpu_s
        requests = rate * (options.requests + 2 / 32)
        rows.append(("pace", f"{rate:,.0f} images/s on {options.workers} CPUs: {images / rate / 86400:.1f} days"))
        rows.append(
            ("storage", f"{requests:,.0f} requests/s, {rate * (options.requests_put + 1 / 32):,.0f} of them PUT")
        )
    for name, text in rows:
        print(f"  {name:<16} {text}")


def main() -> None:
    """Simulate, or calculate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sources", type=int, default=10_000)
    parser.add_argument("--images", action="store_true")
    parser.add_argument("--without-ray", action="store_true")
    parser.add_argument("--actors", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--arithmetic", action="store_true")
    parser.add_argument("--price-per-hour", type=float, help="of one CPU or GPU, in any currency")
    parser.add_argument("--workers", type=int, default=1000, help="CPUs that paint")
    parser.add_argument("--cpu-s", type=float, default=0.174, help="CPU seconds per image")
    parser.add_argument("--gpu-s", type=float, help="GPU seconds per image")
    parser.add_argument("--listing-rate", type=float, default=115_600, help="keys per second")
    parser.add_argument("--plan-bytes", type=float, default=10.7)
    parser.add_argument("--row-bytes", type=float, default=234)
    parser.add_argument("--success-bytes", type=float, default=190, help="of _SUCCESS for each part")
    parser.add_argument("--requests", type=float, default=2, help="requests per image: one GET, one PUT")
    parser.add_argument("--requests-put", type=float, default=1)
    options = parser.parse_args()
    if options.without_ray:
        simulate_without_ray(options.sources)
    elif options.arithmetic:
        for images in (options.sources,) if options.sources != 10_000 else (10**6, 10**8):
            print(f"{images:,} images")
            arithmetic(images, options)
    else:
        simulate(options.sources, with_images=options.images, num_actors=options.actors)


if __name__ == "__main__":
    main()
