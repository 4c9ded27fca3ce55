"""How fast a plan is frozen, and in how much memory.

    python benchmarks/planning.py --pager 10000000     keys from a synthetic S3 listing
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
from typing import Any

from stylemill.errors import ObjectNotFound
from stylemill.manifest.layout import RunLayout
from stylemill.storage import ObjectStat, Storage, StorageOptions
from stylemill.storage.s3 import S3Store
from stylemill.storage.sources import find_sources
from stylemill.stylizing.plan import Source, TwinFinder, plan_sources

FILES_PER_FOLDER = 1000


class SyntheticS3(S3Store):
    """Answers to ``list_objects_v2`` as S3 would give them, without a network; the rest is the code of a bulk run."""

    def __init__(self, num_keys: int) -> None:
        super().__init__(StorageOptions(endpoint_url="http://127.0.0.1:9"))
        self._num_keys = num_keys

    def stat(self, path: str) -> ObjectStat:
        """Tell that the location is no object."""
        raise ObjectNotFound(path)

    def _list_page(self, request: dict[str, Any], root: str) -> dict[str, Any]:
        first = int(request.get("ContinuationToken", 0))
        last = min(first + request["MaxKeys"], self._num_keys)
        found = [
            {
                "Key": f"assets/{number // 10_000:05d}/{number:09d}.jpg",
                "Size": 100_000 + number % 1000,
                "ETag": f'"{number:032x}"',
            }
            for number in range(first, last)
        ]
        return {"Contents": found, "IsTruncated": last < self._num_keys, "NextContinuationToken": str(last)}


def make_tree(root: Path, num_files: int) -> None:
    """Write one-byte files in folders of 1,000."""
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
        storage, source = Storage(), str(arguments.tree or Path(scratch, "tree"))
        if arguments.files:
            make_tree(Path(source), arguments.files)
        if arguments.pager:
            storage._stores["s3"], source = SyntheticS3(arguments.pager), "s3://library/assets"

        def find(after: str, twins: TwinFinder) -> Iterator[Source]:
            return (twins.add(item) for item in find_sources(storage, source, after))

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
