"""How fast a plan is frozen, and in how much memory.

    python benchmarks/planning.py --pager 10000000     keys from a synthetic S3 pager
    python benchmarks/planning.py --files 1000000      real files in a local tree (made in a scratch folder first)
    python benchmarks/planning.py --tree DIR           a tree that is there already

Plan shards are really written (to a scratch folder), by the same code that a bulk run uses.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from pipeline.manifest.layout import RunLayout
from pipeline.storage import ObjectStat, Storage
from pipeline.storage.sources import find_sources
from pipeline.stylizing.planner import Source, TwinFinder, plan_sources

KEYS_PER_PAGE = 1000
FILES_PER_FOLDER = 1000


def synthetic_pager(num_keys: int, after: str) -> Iterator[ObjectStat]:
    """Yield keys as pages of ``list_objects_v2`` would bring them, in order."""
    assert not after, "the benchmark plans in one go"
    for page in range(0, num_keys, KEYS_PER_PAGE):
        yield from [
            ObjectStat(
                f"s3://library/assets/{number // 10_000:05d}/{number:09d}.jpg",
                f"{number // 10_000:05d}/{number:09d}.jpg",
                100_000 + number % 1000,
                f"{number:032x}",
            )
            for number in range(page, min(page + KEYS_PER_PAGE, num_keys))
        ]


def make_tree(root: Path, num_files: int) -> None:
    """Write so many one-byte files in folders of 1,000."""
    for folder in range(0, num_files, FILES_PER_FOLDER):
        directory = root / f"{folder // FILES_PER_FOLDER:05d}"
        directory.mkdir(parents=True)
        for number in range(folder, min(folder + FILES_PER_FOLDER, num_files)):
            (directory / f"{number:09d}.jpg").write_bytes(b"x")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--pager", type=int)
    which.add_argument("--files", type=int)
    which.add_argument("--tree", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        tree = arguments.tree or Path(scratch, "tree")
        if arguments.files:
            make_tree(tree, arguments.files)
        storage = Storage()

        def find(after: str, twins: TwinFinder) -> Iterator[Source]:
            found = (
                synthetic_pager(arguments.pager, after) if arguments.pager else find_sources(storage, str(tree), after)
            )
            return (twins.add(item) for item in found)

        layout = RunLayout(out=str(Path(scratch, "out")), run_id="benchmark")
        start_s, total = time.perf_counter(), 0
        first_s = 0.0
        for _, rows in plan_sources(storage, layout, find):
            total += rows
            first_s = first_s or time.perf_counter() - start_s
        seconds = time.perf_counter() - start_s
        plan_bytes = sum(path.stat().st_size for path in Path(layout.plan_uri).iterdir())
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{total:,} keys in {seconds:.1f} s: {total / seconds:,.0f} keys/s, first shard after {first_s:.2f} s")
    print(f"peak RSS {peak_mb:.0f} MB, plan {plan_bytes / total:.1f} bytes per source")


if __name__ == "__main__":
    main()
