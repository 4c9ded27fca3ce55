"""End-to-end rate of a bulk job against the bare forward rate on the same cores.

    python benchmarks/bulk.py --input DIR [--copies 8] [--model URI] [--out URI] [--rounds 2]

The bare rate is what the network alone does on the same decoded images, in memory: one process per core with one
thread each, as the actors run. The bulk job decodes, paints, encodes, writes images and commits. ``--copies``
links every file N times under other names, to make a library of 1,000 and more. Stage times come from the
manifest; the time to the first image and the whole wall time are printed with the rate. Memory is that of all processes
of the job together (proportional set sizes), over the second and over the last quarter of the painting: flat if equal.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path

from bulk_vs_loop import random_model

from stylemill.cli.session import ray_session
from stylemill.errors import ImageError
from stylemill.images.decode import decode
from stylemill.images.options import DecodeOptions
from stylemill.manifest.read import read_manifest
from stylemill.process import periodically, process_tree_bytes
from stylemill.storage import Storage
from stylemill.style_model import load_style_model
from stylemill.stylizing.config import StylizeConfig
from stylemill.stylizing.liveness import Progress
from stylemill.stylizing.preflight import prepare
from stylemill.stylizing.run import BulkResult, stylize

MEMORY_PERIOD_S = 3.0


def link_library(source: Path, target: Path, copies: int) -> int:
    """Link every file of ``source`` ``copies`` times below ``target``; return the number of files."""
    files = sorted(path for path in source.rglob("*") if path.is_file())
    for copy in range(copies):
        folder = target / f"{copy:03d}"
        folder.mkdir(parents=True)
        for path in files:
            (folder / path.name).symlink_to(path.resolve())
    return copies * len(files)


def forward_alone(
    model_uri: str, paths: list[Path], ready: multiprocessing.Barrier, results: multiprocessing.Queue
) -> None:
    """Paint decoded images on one thread and report images and seconds."""
    import torch

    from stylemill.nn.fast_net import FastNet

    torch.set_num_threads(1)
    net = FastNet(load_style_model(Storage(), model_uri).build_network(), precision="auto")
    images = []
    for path in paths:
        try:
            images.append(decode(path.read_bytes(), DecodeOptions()).image_HWC)
        except ImageError:
            continue
    for image_HWC in images:  # kernels and pages of every shape, as in a long job
        net.stylize(image_HWC)
    ready.wait()
    start_s = time.perf_counter()
    for image_HWC in images:
        net.stylize(image_HWC)
    results.put((len(images), time.perf_counter() - start_s))


def bare_rate(model_uri: str, source: Path, num_processes: int) -> float:
    """Return images per second of the network alone, over all cores."""
    context = multiprocessing.get_context("spawn")
    ready, results = context.Barrier(num_processes), context.Queue()
    paths = sorted(path for path in source.rglob("*") if path.is_file())
    workers = [
        context.Process(target=forward_alone, args=(model_uri, paths[index::num_processes], ready, results))
        for index in range(num_processes)
    ]
    for worker in workers:
        worker.start()
    rates = [count / seconds for count, seconds in (results.get() for _ in workers)]
    for worker in workers:
        worker.join()
    return sum(rates)


class MemoryCurve:
    """The memory of this process and its descendants while the network paints."""

    def __init__(self) -> None:
        self.samples: list[tuple[float, int]] = []
        """Share of the sources that are finished, bytes."""
        self.share = 0.0

    def sample(self) -> None:
        """Add a sample while images are being painted."""
        used = process_tree_bytes(os.getpid())
        if used is not None and 0 < self.share < 1:
            self.samples.append((self.share, used))

    def median_mib(self, low: float, high: float) -> float:
        """Return the median over a part of the job, in MiB."""
        inside = [used for share, used in self.samples if low <= share < high]
        return statistics.median(inside) / 2**20 if inside else float("nan")


def bulk(model_uri: str, library: Path, out: str) -> tuple[BulkResult, float, float, MemoryCurve]:
    """Return the result of a bulk job, seconds to the first finished image, the whole wall time, and its memory."""
    first_s, memory = float("nan"), MemoryCurve()
    start_s = time.perf_counter()

    def note(progress: Progress) -> None:
        nonlocal first_s
        memory.share = progress.num_finished / max(1, progress.num_sources)
        if progress.num_finished and first_s != first_s:
            first_s = time.perf_counter() - start_s

    prepared = prepare(StylizeConfig(model=(model_uri,), input=str(library), out=out, runner="ray"))
    with periodically(memory.sample, MEMORY_PERIOD_S), ray_session():
        result = stylize(prepared, on_progress=note)
    return result, first_s, time.perf_counter() - start_s, memory


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", type=Path, required=True)
    parser.add_argument("--copies", type=int, default=8)
    parser.add_argument("--model", help="style model; by default random weights of width 1")
    parser.add_argument("--out", help="where to write; by default a scratch folder")
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    num_processes = len(os.sched_getaffinity(0))
    bare, rates, firsts, walls = [], [], [], []
    stages: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as scratch:
        model_uri = arguments.model or random_model(scratch)
        library = Path(scratch, "library")
        total = link_library(arguments.input, library, arguments.copies)
        for number in range(arguments.rounds):
            bare.append(bare_rate(model_uri, arguments.input, num_processes))
            out = f"{arguments.out or scratch}/out{number}"
            result, first_s, wall_s, memory = bulk(model_uri, library, out)
            rates.append(result.progress.images_per_s)
            firsts.append(first_s)
            walls.append(wall_s)
            table = read_manifest(Storage(), result.layout)
            for stage in ("decode_ms", "stylize_ms", "encode_ms"):
                stages[stage] += sum(value or 0 for value in table.column(stage).to_pylist()) / table.num_rows
            print(f"round {number + 1}: bare {bare[-1]:.2f}/s, bulk {rates[-1]:.2f}/s, wall {wall_s:.1f} s", flush=True)
            early_mib, late_mib = memory.median_mib(0.25, 0.5), memory.median_mib(0.75, 1.0)
            print(f"  memory of all processes: {early_mib:.0f} MiB early, {late_mib:.0f} MiB late", flush=True)
    print(
        f"{total} files; medians: bare forward {statistics.median(bare):.2f}/s, bulk {statistics.median(rates):.2f}/s"
    )
    ratios = [rate / alone for rate, alone in zip(rates, bare, strict=True)]
    print(f"bulk / bare = {statistics.median(ratios):.3f} (target: at least 0.9)")
    print(f"first image after {statistics.median(firsts):.1f} s, wall {statistics.median(walls):.1f} s")
    print("per image: " + ", ".join(f"{stage} {value / arguments.rounds:.1f}" for stage, value in stages.items()))


if __name__ == "__main__":
    main()
