"""The demo's pages: gathers what its two runs left behind."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from jobs.demo_places import Places
from jobs.terminal import duration
from pipeline.manifest.read import read_manifest
from pipeline.report.gather import gather_bulk, gather_training
from pipeline.report.pages import DemoStory
from pipeline.report.sheet import before_after_sheet
from pipeline.report.write import write_bulk_report, write_demo_report, write_training_report
from pipeline.storage import Storage

if TYPE_CHECKING:
    from pipeline.auditing.verify import Verification
    from pipeline.stylizing.run import BulkResult

FIRST_KEY = "animals/chelsea.jpg"
"""Key of the pair that opens the page."""
SHEET_KEYS = ("animals/chelsea.jpg", "people/astronaut.jpg", "table/coffee.jpg", "space/launch.jpg")
"""Keys of the pairs on the sheet."""


def write_pages(
    places: Places,
    painted: BulkResult,
    verification: Verification,
    *,
    train_s: float,
    paint_s: float,
    took_s: float,
    peak_bytes: int | None,
) -> None:
    """Write the pages of the training, of the bulk run and of both together, and the sheet.

    Args:
        places: of the demo.
        painted: the bulk run.
        verification: of the bulk run.
        train_s: seconds that training took, start and end of its workers included.
        paint_s: seconds that repainting took, likewise.
        took_s: seconds of the whole demo so far.
        peak_bytes: memory of this process and all that it started, None if unknown.
    """
    storage = Storage()
    training = gather_training(storage, str(places.training))
    bulk = gather_bulk(storage, painted.layout, first_key=FIRST_KEY)
    facts = machine() | {"whole demo": duration(took_s)}
    if peak_bytes is not None:
        facts["peak memory"] = f"{peak_bytes / 2**30:.1f} GiB, Ray and all its processes included"
    story = DemoStory(
        training=training,
        bulk=bulk,
        verification=verdict(verification),
        verified=verification.is_sound,
        stages_s=[("training took", train_s), ("the library took", paint_s)],
        facts=facts,
    )
    write_training_report(storage, str(places.training), training)
    write_bulk_report(storage, painted.layout, bulk)
    write_demo_report(storage, str(places.out), story)
    _write_sheet(places, read_manifest(storage, painted.layout))


def verdict(found: Verification) -> str:
    """Return what checking the manifest found, in one sentence."""
    if found.is_sound:
        return (
            f"{found.num_rows:,} rows, one for every source; {found.num_objects:,} paintings stand where the "
            "manifest says and have its SHA-256 digests"
        )
    first = found.problems[0]
    return f"{len(found.problems):,} problems, the first: {first.kind} {first.uri}: {first.detail}"


def machine() -> dict[str, str]:
    """Return what the demo ran on."""
    return {
        "machine": f"{os.cpu_count()} CPUs, {platform.machine()}, {platform.system()}",
        "software": f"Python {platform.python_version()}, torch {version('torch')}, ray {version('ray')}",
    }


def _write_sheet(places: Places, rows: pa.Table) -> None:
    outputs = dict(zip(rows["key"].to_pylist(), rows["output_uri"].to_pylist(), strict=True))
    pairs = [
        ((places.library / key).read_bytes(), Path(outputs[key]).read_bytes()) for key in SHEET_KEYS if outputs.get(key)
    ]
    if pairs:
        places.sheet.write_bytes(before_after_sheet(places.style.read_bytes(), pairs))
