"""Where the demo keeps its things.

``stylemill demo``: the whole story on this machine, from a picture drawn by code to a repainted library.

The demo's pages: gathers what its two runs left behind.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from stylemill.cli.arguments import parse
from stylemill.cli.terminal import LiveLine, counts_text, duration
from stylemill.config import from_mapping
from stylemill.errors import ConfigError

if TYPE_CHECKING:
    import pyarrow as pa

    from stylemill.auditing.verify import Verification
    from stylemill.stylizing.preflight import PreparedRun
    from stylemill.stylizing.run import BulkResult
    from stylemill.training.config import TrainConfig
    from stylemill.training.preflight import PreparedTraining

STYLE_NAME = "night-fields"


@dataclass(frozen=True, kw_only=True)
class Places:
    """Files and folders of one demo."""

    out: Path
    """The demo's own folder, absolute."""

    @property
    def style(self) -> Path:
        """The style image."""
        return self.out / "style" / f"{STYLE_NAME}.png"

    @property
    def content(self) -> Path:
        """Crops of photographs to learn on."""
        return self.out / "content"

    @property
    def library(self) -> Path:
        """What is repainted."""
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
        """The page about it all."""
        return self.out / "report" / "index.html"

    @property
    def sheet(self) -> Path:
        """One picture about it all."""
        return self.out / "report" / "before-after.jpg"


NUM_CHAPTERS = 5
# Two of the 29 images of the library are broken on purpose.
MAX_FAILED_FRACTION = 0.10


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """The whole way once."""

    out: str = "demo-out"
    """Folder on this machine for everything that the demo makes; running it again there finishes what is left."""

    steps: int = 500
    """Training steps; fewer are quicker and paint less."""

    def __post_init__(self) -> None:
        if not self.out:
            raise ConfigError("out", self.out, "is empty", "write a folder such as demo-out")
        if "://" in self.out:
            cure = "give a folder; `stylemill stylize` writes to object storage"
            raise ConfigError("out", self.out, "is not on this machine", cure)
        if self.steps < 1:
            raise ConfigError("steps", self.steps, "is below 1", "write a whole number from 1")


def main(arguments: Sequence[str]) -> int:
    """Run the verb; return 0 when the library is repainted and its manifest sound, else 1."""
    config = parse(DemoConfig, "demo", "The whole story on this machine; nothing is downloaded.", arguments)
    if config is None:
        return 0
    places = Places(out=Path(config.out).absolute())
    try:
        places.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        cure = "give a folder that you may write"
        raise ConfigError("out", config.out, f"cannot be made ({error.strerror})", cure) from error
    return _Demo(config, places).run()


def train_config(places: Places, steps: int) -> TrainConfig:
    """Return how the demo trains: small and quick, but long enough to see strokes and palette."""
    from stylemill.training.config import PRESETS, TrainConfig

    return from_mapping(
        TrainConfig,
        {
            **PRESETS["quick"],
            "style_image": str(places.style),
            "content": [str(places.content)],
            "out": str(places.training),
            "name": STYLE_NAME,
            "steps": steps,
            "sample_every": max(1, steps // 5),
        },
    )


class _Demo:
    """One invocation."""

    def __init__(self, config: DemoConfig, places: Places) -> None:
        self._config = config
        self._places = places
        self._chapter_number = 0
        self._seconds: list[float] = []

    def run(self) -> int:
        """Go the whole way and return the exit code."""
        from stylemill.cli.session import ray_session
        from stylemill.process import PeakMemory

        start_s = time.monotonic()
        with self._chapter("Drawing a style and building a library"):
            self._build()
            training = self._prepare_training()
        # A session takes some seconds to start; a second run of the demo may have no use for one.
        with PeakMemory() as memory, nullcontext() if self._is_done(training) else ray_session():
            with self._chapter("Learning the style"):
                self._train(training)
            with self._chapter("Repainting the library"):
                painted = self._paint()
            with self._chapter("Checking every file against the manifest"):
                verification = self._verify(painted)
        with self._chapter("Writing the page"):
            if not (painted.already_committed and self._places.page.exists()):
                took_s = time.monotonic() - start_s
                write_pages(
                    self._places,
                    painted,
                    verification,
                    train_s=self._seconds[1],
                    paint_s=self._seconds[2],
                    took_s=took_s,
                    peak_bytes=memory.peak_bytes,
                )
        print(f"\nDone in {duration(time.monotonic() - start_s)}. Open this page in a browser:")
        print(self._places.page)
        return 0 if verification.is_sound else 1

    @contextmanager
    def _chapter(self, title: str) -> Iterator[None]:
        self._chapter_number += 1
        print(f"\n{self._chapter_number}/{NUM_CHAPTERS}  {title}", flush=True)
        start_s = time.monotonic()
        yield
        self._seconds.append(time.monotonic() - start_s)

    def _build(self) -> None:
        from stylemill.demo.library import build_library, build_training_content
        from stylemill.demo.style_image import draw_style_image

        crops = build_training_content(self._places.content)
        library = build_library(self._places.library)
        if not self._places.style.exists():
            self._places.style.parent.mkdir(parents=True, exist_ok=True)
            draft = self._places.style.with_suffix(".draft")
            draw_style_image().save(draft, format="PNG")
            draft.replace(self._places.style)
        num_pictures = len(library.keys) - len(library.damaged_keys)
        _tell(f"a painting, drawn by code: {self._places.style}")
        _tell(f"{len(crops)} crops of real photographs to learn on")
        _tell(f"a library of {num_pictures} pictures and {len(library.damaged_keys)} files that are none")

    def _prepare_training(self) -> PreparedTraining:
        from stylemill.training.preflight import prepare

        return prepare(train_config(self._places, self._config.steps))

    def _prepare_painting(self) -> PreparedRun:
        from stylemill.stylizing.config import StylizeConfig
        from stylemill.stylizing.preflight import prepare

        return prepare(
            StylizeConfig(
                model=(str(self._places.model),),
                input=str(self._places.library),
                out=str(self._places.repainted),
                max_failed_fraction=MAX_FAILED_FRACTION,
                # So that the demo's pictures look the same with and without bfloat16 in hardware.
                precision="float32",
            )
        )

    def _is_done(self, training: PreparedTraining) -> bool:
        return training.finished is not None and self._prepare_painting().success is not None

    def _train(self, training: PreparedTraining) -> None:
        if training.finished is not None:
            _tell("learned before")
            return
        from stylemill.cli.train import learn

        learn(training)
        _tell(f"the style as one file: {self._places.model}")

    def _paint(self) -> BulkResult:
        from stylemill.cli.stylize import progress_text
        from stylemill.stylizing.run import stylize

        prepared = self._prepare_painting()
        with _live_line() as line:
            result = stylize(prepared, on_progress=lambda progress: line.show(progress_text(progress)))
        if result.already_committed:
            _tell(f"repainted before, at {result.success.finished_at}")
        _tell(f"{counts_text(result.success.counts)}: what is damaged becomes a row with a reason and stops nothing")
        return result

    def _verify(self, painted: BulkResult) -> Verification:
        from stylemill.auditing.verify import verify
        from stylemill.storage import StorageOptions

        found = verify(StorageOptions(), painted.layout)
        _tell(verdict(found))
        return found


@contextmanager
def _live_line() -> Iterator[LiveLine]:
    line = LiveLine()
    try:
        yield line
    finally:
        line.close()


def _tell(text: str) -> None:
    print(f"     {text}", flush=True)


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
    from stylemill.manifest.read import read_manifest
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
    training = load_training_report(storage, str(places.training))
    bulk = load_bulk_report(storage, painted.layout, first_key=FIRST_KEY)
    facts = machine() | {"whole demo": duration(took_s)}
    if peak_bytes is not None:
        facts["peak memory"] = f"{peak_bytes / 2**30:.1f} GiB, Ray and all its processes included"
    report = DemoReport(
        training=training,
        bulk=bulk,
        verification=verdict(verification),
        verified=verification.is_sound,
        stages_s=[("training took", train_s), ("the library took", paint_s)],
        facts=facts,
    )
    write_training_report(storage, str(places.training), training)
    write_bulk_report(storage, painted.layout, bulk)
    write_demo_report(storage, str(places.out), report)
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
    from stylemill.report.pictures import before_after_sheet

    outputs = dict(zip(rows["key"].to_pylist(), rows["output_uri"].to_pylist(), strict=True))
    pairs = [
        ((places.library / key).read_bytes(), Path(outputs[key]).read_bytes()) for key in SHEET_KEYS if outputs.get(key)
    ]
    if pairs:
        places.sheet.write_bytes(before_after_sheet(places.style.read_bytes(), pairs))
