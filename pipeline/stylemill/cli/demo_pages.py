"""Where ``stylemill demo`` keeps its files, and the pages about them."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from stylemill.cli.terminal import duration

if TYPE_CHECKING:
    import pyarrow as pa

    from stylemill.auditing.verify import Verification
    from stylemill.report.pictures import Picture
    from stylemill.stylizing.run import BulkResult

STYLE_NAME = "night-fields"
BUILTIN_STYLES = ("stained-glass", "woodcut")
"""Styles that are trained already, in which the library is painted as well."""
FIRST_KEY = "animals/chelsea.jpg"
"""Key of the first pair on the page."""
PICTURE_KEYS = ("animals/chelsea.jpg", "people/astronaut.jpg", "table/coffee.jpg", "space/launch.jpg")
"""Keys of the photographs on the picture of all styles."""


@dataclass(frozen=True, kw_only=True)
class DemoLayout:
    """Locations of the files and folders of one demo."""

    out: Path
    """The folder of the demo, absolute."""

    def style(self, name: str = STYLE_NAME) -> Path:
        """Return the place of a style image."""
        return self.out / "style" / f"{name}.png"

    @property
    def content(self) -> Path:
        """Crops of photographs to train on."""
        return self.out / "content"

    @property
    def library(self) -> Path:
        """The library to repaint."""
        return self.out / "library"

    @property
    def training(self) -> Path:
        """Output location of the training."""
        return self.out / "training"

    @property
    def model(self) -> Path:
        """The trained style."""
        return self.training / "style.safetensors"

    @property
    def repainted(self) -> Path:
        """Output location of the bulk run."""
        return self.out / "repainted"

    @property
    def page(self) -> Path:
        """The page about the whole demo."""
        return self.out / "report" / "index.html"

    @property
    def picture(self) -> Path:
        """A picture with four photographs and their paintings in all styles."""
        return self.out / "report" / "styles.jpg"


def write_pages(
    layout: DemoLayout,
    painted: BulkResult,
    verification: Verification,
    *,
    train_s: float,
    paint_s: float,
    took_s: float,
    peak_bytes: int | None,
) -> None:
    """Write the pages of the training, the bulk run and the demo, and the picture of all styles.

    Args:
        layout: locations of the demo.
        painted: the bulk run.
        verification: result of verifying the bulk run.
        train_s: seconds of the training, including start and end of its workers.
        paint_s: seconds of the repainting, likewise.
        took_s: seconds of the whole demo so far.
        peak_bytes: memory of this process and all its child processes; None if unknown.
    """
    from stylemill.manifest.read import read_manifest
    from stylemill.report.rendering import size
    from stylemill.report.run_pages import DemoReport
    from stylemill.report.write import (
        load_bulk_report,
        load_training_report,
        write_bulk_report,
        write_demo_report,
        write_training_report,
    )
    from stylemill.storage import Storage

    storage = Storage()
    training = load_training_report(storage, str(layout.training))
    style_images = {name: layout.style(name).read_bytes() for name in BUILTIN_STYLES}
    bulk = load_bulk_report(storage, painted.layout, first_key=FIRST_KEY, style_images=style_images)
    sheet = _write_picture(layout, read_manifest(storage, painted.layout))
    facts = describe_machine() | {"whole demo": duration(took_s)}
    if peak_bytes is not None:
        facts["peak memory"] = f"{size(peak_bytes)}, Ray and all its processes included"
    report = DemoReport(
        training=training,
        bulk=bulk,
        verification=verification_sentence(verification),
        verified=verification.is_sound,
        sheet=sheet,
        stages_s=[("training took", train_s), ("repainting took", paint_s)],
        facts=facts,
    )
    write_training_report(storage, str(layout.training), training)
    write_bulk_report(storage, painted.layout, bulk)
    write_demo_report(storage, str(layout.out), report)


def verification_sentence(found: Verification) -> str:
    """Return the result of a verification in one sentence."""
    if found.is_sound:
        return (
            f"{found.num_rows:,} rows, one for every source and style; {found.num_objects:,} paintings exist where the "
            "manifest lists them and have its SHA-256 digests"
        )
    first = found.problems[0]
    return f"{len(found.problems):,} problems, the first: {first.kind} {first.uri}: {first.detail}"


def describe_machine() -> dict[str, str]:
    """Return the machine and the software that the demo ran on."""
    return {
        "machine": f"{os.cpu_count()} CPUs, {platform.machine()}, {platform.system()}",
        "software": f"Python {platform.python_version()}, torch {version('torch')}, ray {version('ray')}",
    }


def _write_picture(layout: DemoLayout, rows: pa.Table) -> Picture | None:
    """Write the picture of all styles and return it for the page; None if no photograph was painted in every style."""
    from stylemill.report.pictures import embed, styles_sheet

    styles = (STYLE_NAME, *BUILTIN_STYLES)
    outputs = {(row["style"], row["key"]): row["output_uri"] for row in rows.to_pylist() if row["output_uri"]}
    keys = [key for key in PICTURE_KEYS if all((style, key) in outputs for style in styles)]
    if not keys:
        return None
    sheet = styles_sheet(
        [(layout.library / key).read_bytes() for key in keys],
        [
            (layout.style(style).read_bytes(), [Path(outputs[style, key]).read_bytes() for key in keys])
            for style in styles
        ],
    )
    layout.picture.parent.mkdir(parents=True, exist_ok=True)
    layout.picture.write_bytes(sheet)
    return embed(sheet, alt="photographs of the library in all styles", max_side_px=1400)
