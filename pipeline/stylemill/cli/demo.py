"""``stylemill demo``: all steps on this machine, from a style image drawn by code to a library in three styles.

Five stages: build the inputs, train a style, repaint the library in it and in the two styles that come with stylemill,
verify the manifest, write the pages. Running the demo again in the same folder skips what is finished.
"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stylemill.cli.arguments import parse
from stylemill.cli.demo_pages import BUILTIN_STYLES, STYLE_NAME, DemoLayout, verification_sentence, write_pages
from stylemill.cli.output import result
from stylemill.cli.terminal import LiveLine, by_status, counts_text, duration
from stylemill.config import from_mapping
from stylemill.errors import ConfigError

if TYPE_CHECKING:
    from stylemill.auditing.verify import Verification
    from stylemill.stylizing.preflight import PreparedRun
    from stylemill.stylizing.run import BulkResult
    from stylemill.training.config import TrainConfig
    from stylemill.training.preflight import PreparedTraining

NUM_STAGES = 5
BUILTIN_STYLE_PX = 320
"""Side of the drawings of the styles that are already trained; only the page shows them."""
MAX_FAILED_FRACTION = 0.10
"""Two of the 29 images of the library are damaged on purpose."""


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """Settings of the demo."""

    out: str = "demo-out"
    """Folder on this machine for all output of the demo; running it again there finishes what is left."""

    steps: int = 200
    """Training steps; fewer are quicker and give a weaker style."""

    def __post_init__(self) -> None:
        if not self.out:
            raise ConfigError("out", self.out, "is empty", "write a folder such as demo-out")
        if "://" in self.out:
            cure = "give a folder; `stylemill stylize` writes to object storage"
            raise ConfigError("out", self.out, "is not on this machine", cure)
        if self.steps < 1:
            raise ConfigError("steps", self.steps, "is below 1", "write a whole number from 1")


def main(arguments: Sequence[str]) -> int:
    """Run the verb; return 0 if the library is repainted and its manifest is sound, else 1."""
    config = parse(DemoConfig, "demo", "Train a style and repaint photos on this machine; no download.", arguments)
    if config is None:
        return 0
    layout = DemoLayout(out=Path(config.out).absolute())
    try:
        layout.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        cure = "give a folder in which you may write"
        raise ConfigError("out", config.out, f"cannot be created ({error.strerror})", cure) from error
    return _Demo(config, layout).run()


def train_config(layout: DemoLayout, steps: int) -> TrainConfig:
    """Return the config of the training: small and quick, but long enough to show strokes and palette."""
    from stylemill.training.config import PRESETS, TrainConfig

    return from_mapping(
        TrainConfig,
        {
            **PRESETS["quick"],
            "style_image": str(layout.style()),
            "loss_weights": "hed",  # nothing else is there without a download
            "content": [str(layout.content)],
            "out": str(layout.training),
            "name": STYLE_NAME,
            "steps": steps,
            "sample_every": max(1, steps // 5),
        },
    )


def next_commands(layout: DemoLayout, program: str = sys.argv[0]) -> list[tuple[str, str]]:
    """Return what to try after the demo: purposes and commands that can be pasted, with the demo's own paths.

    Args:
        layout: of the demo.
        program: the path by which this program was started.
    """
    name = shlex.quote(program) if Path(program).name == "stylemill" else "stylemill"

    def path(file: Path) -> str:
        is_below = file.is_relative_to(Path.cwd())
        return shlex.quote(str(file.relative_to(Path.cwd()) if is_below else file))

    return [
        ("paint one photo", f"{name} paint PHOTO.jpg --model {path(layout.model)}"),
        ("repaint a folder", f"{name} stylize --model {path(layout.model)} --input FOLDER --out repainted"),
        (
            "learn a style of your own, in a minute",
            f"{name} train --preset minute --style-image STYLE.jpg --content {path(layout.content)} --out my-style",
        ),
    ]


class _Demo:
    """One run of the demo."""

    def __init__(self, config: DemoConfig, layout: DemoLayout) -> None:
        self._config = config
        self._layout = layout
        self._stage_number = 0
        self._seconds: list[float] = []

    def run(self) -> int:
        """Run all stages and return the exit code."""
        from stylemill.cli.session import ray_session
        from stylemill.process import PeakMemory

        start_s = time.monotonic()
        with self._stage("Drawing a style and building a library"):
            self._build()
            training = self._prepare_training()
        # Ray takes some seconds to start, and a demo that is finished does not need it.
        with PeakMemory() as memory, nullcontext() if self._is_done(training) else ray_session():
            with self._stage("Training the style"):
                self._train(training)
            with self._stage("Repainting the library"):
                painted = self._paint()
            with self._stage("Checking every file against the manifest"):
                verification = self._verify(painted)
        with self._stage("Writing the page"):
            if not (painted.already_committed and self._layout.page.exists()):
                took_s = time.monotonic() - start_s
                write_pages(
                    self._layout,
                    painted,
                    verification,
                    train_s=self._seconds[1],
                    paint_s=self._seconds[2],
                    took_s=took_s,
                    peak_bytes=memory.peak_bytes,
                )
        result(
            paths={"page": self._layout.page, "images": self._layout.repainted},
            counts=by_status(painted.success.counts),
        )
        print(f"\nDone in {duration(time.monotonic() - start_s)}. Open this page in a browser:")
        print(self._layout.page)
        print("\nThen, with pictures of your own:")
        for purpose, command in next_commands(self._layout):
            print(f"  # {purpose}\n  {command}")
        return 0 if verification.is_sound else 1

    @contextmanager
    def _stage(self, title: str) -> Iterator[None]:
        self._stage_number += 1
        print(f"\n{self._stage_number}/{NUM_STAGES}  {title}", flush=True)
        start_s = time.monotonic()
        yield
        self._seconds.append(time.monotonic() - start_s)

    def _build(self) -> None:
        from stylemill.demo.drawn_styles import draw_to
        from stylemill.demo.library import build_library, build_training_content

        crops = build_training_content(self._layout.content)
        library = build_library(self._layout.library)
        draw_to(self._layout.style(), STYLE_NAME)
        for name in BUILTIN_STYLES:
            draw_to(self._layout.style(name), name, side_px=BUILTIN_STYLE_PX)
        num_pictures = len(library.keys) - len(library.damaged_keys)
        _print_result(f"a painting, drawn by code: {self._layout.style()}")
        _print_result(f"styles that are already trained: {', '.join(BUILTIN_STYLES)}")
        _print_result(f"{len(crops)} crops of real photographs to train on")
        _print_result(
            f"a library of {num_pictures} pictures and {len(library.damaged_keys)} files that are damaged or not images"
        )

    def _prepare_training(self) -> PreparedTraining:
        from stylemill.training.preflight import prepare

        return prepare(train_config(self._layout, self._config.steps))

    def _prepare_painting(self) -> PreparedRun:
        from stylemill.painting.options import PaintOptions
        from stylemill.stylizing.config import StylizeConfig
        from stylemill.stylizing.preflight import prepare

        return prepare(
            StylizeConfig(
                model=(str(self._layout.model), *(f"builtin#{name}" for name in BUILTIN_STYLES)),
                input=str(self._layout.library),
                out=str(self._layout.repainted),
                max_failed_fraction=MAX_FAILED_FRACTION,
                runner="ray",  # which the training before has started
                # The pictures are the same with and without bfloat16 in hardware.
                paint=PaintOptions(precision="float32"),
            )
        )

    def _is_done(self, training: PreparedTraining) -> bool:
        return bool(training.finished) and self._prepare_painting().success is not None

    def _train(self, training: PreparedTraining) -> None:
        if training.finished:
            _print_result("already trained")
            return
        from stylemill.cli.train import learn

        learn(training)
        _print_result(f"the style is one file: {self._layout.model}")

    def _paint(self) -> BulkResult:
        from stylemill.cli.stylize import progress_text, steps_of
        from stylemill.stylizing.run import stylize

        prepared = self._prepare_painting()
        with _live_line() as line:
            painted = stylize(
                prepared, on_progress=lambda progress: line.show(progress_text(progress), steps_of(progress))
            )
        if painted.already_committed:
            _print_result(f"already repainted, at {painted.success.finished_at}")
        _print_result(
            f"{counts_text(painted.success.counts)}: a damaged file becomes a row with a reason; the run continues"
        )
        return painted

    def _verify(self, painted: BulkResult) -> Verification:
        from stylemill.auditing.verify import verify
        from stylemill.storage import StorageOptions

        found = verify(StorageOptions(), painted.layout)
        _print_result(verification_sentence(found))
        return found


@contextmanager
def _live_line() -> Iterator[LiveLine]:
    line = LiveLine()
    try:
        yield line
    finally:
        line.close()


def _print_result(text: str) -> None:
    print(f"     {text}", flush=True)
