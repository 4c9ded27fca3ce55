"""What exactly-once manifests cost: a bulk actor's work with rows, leases and commit against writing the images alone.

    python benchmarks/safety.py --input PHOTOS [--out s3://bucket/empty] [--rounds 5] [--width 1.0]

Both variants read, paint, encode and put the same images in this process, without Ray, in turns of 32 images; which one
comes first changes from turn to turn. The protocol's variant also computes digests and rows, checks the lease and
flushes after each turn (forced to the disk), and commits at the end. Medians of the turns. ``--out`` is a location
that holds nothing yet; without it, a temporary folder.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from stylemill.images.encode import encode
from stylemill.images.options import output_key
from stylemill.manifest.commit import (
    FLUSH_ROWS,
    PlanSummary,
    Success,
    commit_part,
    complete_plan,
    write_shard,
    write_success,
)
from stylemill.manifest.schema import PLAN_SCHEMA, SCHEMA_VERSION, make_table
from stylemill.nn.transformer_net import Architecture, TransformerNet
from stylemill.painting.options import PaintOptions
from stylemill.storage import Storage, join
from stylemill.storage.lease import acquire
from stylemill.storage.sources import find_sources
from stylemill.style_model import StyleModel, to_bytes
from stylemill.stylizing.config import StylizeConfig
from stylemill.stylizing.paint import Painter
from stylemill.stylizing.plan import TwinFinder, plan_row
from stylemill.stylizing.preflight import prepare
from stylemill.stylizing.read import Reader
from stylemill.stylizing.write import Flusher, Writer

Row = dict[str, Any]


class Work:
    """Both variants over one prepared run."""

    def __init__(self, scratch: Path, source: str, out: str, width: float) -> None:
        net = TransformerNet(Architecture(width=width))
        net.init_weights(0)
        model = StyleModel(
            name="waves", version="1", architecture=net.architecture, state_dict=net.state_dict(), metadata={}
        )
        (scratch / "style.safetensors").write_bytes(to_bytes(model))
        config = StylizeConfig(
            model=(str(scratch / "style.safetensors"),),
            input=source,
            out=join(out, "run"),
            paint=PaintOptions(max_memory="5GiB"),
            runner="ray",
        )
        run = prepare(config)
        self.storage, self.layout, self.identity, self._options = Storage(), run.layout, run.identity, config.encode
        self._alone_uri = join(out, "alone")
        self._reader = Reader(self.storage, config.decode)
        self._painter = Painter(self.storage, run.layout, run.identity.styles, config)
        self._writer = Writer(self.storage, run.layout, run.identity, config.encode)
        self.lease = acquire(self.storage, run.layout.lease_uri)

    def images_alone(self, rows: list[Row]) -> None:
        """Read, paint, encode, put."""
        for row in rows:
            sample = self._painter(self._reader(row))
            if sample.source is None:
                continue
            painted = sample.painted["waves"]
            encoded = encode(painted.frames_HWC[0], sample.source, self._options)
            self.storage.write_bytes(join(self._alone_uri, output_key(sample.key, encoded.format)), encoded.data)

    def with_protocol(self, rows: list[Row]) -> None:
        """The same, with rows that are flushed under the lease."""
        flusher = Flusher(self.storage, self.layout, 0, self.lease)
        for row in rows:
            flusher.add(self._writer(self._painter(self._reader(row))))
        flusher.flush()

    def remove_images(self) -> None:
        """Remove the images of both variants: the next round would find equal ones."""
        for prefix in (self._alone_uri, join(self.layout.out, "images")):
            self.storage.delete_all(found.uri for found in self.storage.list_objects(prefix))

    def commit(self, num_sources: int) -> tuple[int, int]:
        """Publish the manifest; return its rows and bytes."""
        part = commit_part(self.storage, self.layout, 0, ["waves"])
        assert part is not None
        success = Success(
            run_id=self.layout.run_id,
            input=self.identity.input,
            fingerprint=self.identity.fingerprint,
            parent_run_id=None,
            schema_version=SCHEMA_VERSION,
            styles=[dict(vars(style)) for style in self.identity.styles],
            num_sources=num_sources,
            counts=part.counts,
            parts=[part],
            finished_at="2026-01-01T00:00:00+00:00",
        )
        assert write_success(self.storage, self.layout, success)
        return part.rows, self.storage.stat(self.layout.part_uri(0)).size_bytes


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", required=True)
    parser.add_argument("--out")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--width", type=float, default=1.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        work = Work(Path(scratch), arguments.input, arguments.out or scratch, arguments.width)
        twins = TwinFinder()
        planned = [plan_row(twins.add(found)) for found in find_sources(work.storage, arguments.input)]
        planned = [row for row in planned if row["size_bytes"]]
        turns = [planned[start : start + FLUSH_ROWS] for start in range(0, len(planned), FLUSH_ROWS)]
        work.images_alone(turns[0][:4])
        seconds: dict[str, list[tuple[float, float]]] = {"images_alone": [], "with_protocol": []}
        for turn in range(arguments.rounds * len(turns)):
            rows = turns[turn % len(turns)]
            for variant in sorted(seconds, reverse=turn % 2 == 1):
                start_s, start_cpu_s = time.perf_counter(), time.process_time()
                getattr(work, variant)(rows)
                seconds[variant].append((time.perf_counter() - start_s, time.process_time() - start_cpu_s))
                if turn + len(turns) < arguments.rounds * len(turns):  # images of the last round stay for the commit
                    work.remove_images()
        table = make_table(planned, PLAN_SCHEMA)
        start_s, start_cpu_s = time.perf_counter(), time.process_time()
        write_shard(work.storage, work.layout, 0, table)
        complete_plan(work.storage, work.layout, PlanSummary(num_shards=1, num_sources=len(planned), num_bytes=1))
        num_rows, num_bytes = work.commit(len(planned))
        commit_s, commit_cpu_s = time.perf_counter() - start_s, time.process_time() - start_cpu_s
    print(f"{len(planned)} sources, {arguments.rounds} rounds in turns of {FLUSH_ROWS}")
    for name, column, committing_s in (("wall", 0, commit_s), ("CPU", 1, commit_cpu_s)):
        alone, safe = ([pair[column] for pair in seconds[variant]] for variant in sorted(seconds))
        share = statistics.median(b / a for a, b in zip(alone, safe, strict=True)) - 1
        committing = committing_s / (sum(alone) / arguments.rounds)
        print(f"{name}: rows and flushes {share:+.1%}, plan and commit {committing:+.1%} of writing the images alone")
    print(f"manifest: {num_bytes / num_rows:.0f} bytes per row ({num_rows} rows)")


if __name__ == "__main__":
    main()
