"""``stylemill train``: train one network, of one style or several.

``learn``, ``print_summary`` and ``write_report`` also serve ``retrain`` and the demos.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from stylemill.cli.arguments import parse
from stylemill.cli.output import result as add_result
from stylemill.cli.session import TERMINATED
from stylemill.cli.terminal import LiveLine, Steps, duration, print_report
from stylemill.training.config import PRESETS, TrainConfig

if TYPE_CHECKING:
    from stylemill.style_file import StyleHeader
    from stylemill.training.preflight import PreparedTraining
    from stylemill.training.tracker import TrainProgress
    from stylemill.training.train import TrainResult


def main(arguments: Sequence[str]) -> int:
    """Run the verb."""
    description = "Train one network, of one style or several; running the same command again resumes."
    config = parse(TrainConfig, "train", description, arguments, presets=PRESETS)
    return 0 if config is None else run(config)


def run(config: TrainConfig) -> int:
    """Train, print progress and return the exit code."""
    from stylemill.training.preflight import prepare

    prepared = prepare(config)
    add_result(style=config.style_name)
    num = len(prepared.content)
    several = "s" * (len(prepared.styles) > 1)
    print(
        f"style{several} {config.style_name!r}: {num:,} content image{'s' * (num != 1)} -> {prepared.layout.out}",
        flush=True,
    )
    if prepared.loss_origin is not None:
        origin = prepared.loss_origin
        print(f"loss: {config.loss_network}, weights {origin['source']}, sha256 {origin['sha256'][:12]}", flush=True)
    for warning in prepared.warnings:
        print(f"note: {warning}", flush=True)
    if prepared.finished:
        add_result(
            is_already_finished=True,
            version=prepared.finished[0].version,
            paths={"style": prepared.layout.style_uri, "metrics": prepared.layout.metrics_uri},
        )
        print(f"already finished: {prepared.layout.style_uri} {_versions(prepared.finished)}")
        return 0
    from stylemill.cli.session import ray_session

    with ray_session():
        result = learn(prepared)
    print_summary(result)
    if not result.headers:
        return TERMINATED  # after a checkpoint; the same command resumes
    if config.add_to is not None:  # the file has the styles that it was added to as well
        styles = " ".join(f"--style {header.name}" for header in result.headers)
        print(f"paint:    stylemill paint PHOTO.jpg --model {result.layout.style_uri} {styles}")
    write_report(config, result)
    return 0


def learn(prepared: PreparedTraining) -> TrainResult:
    """Train a prepared run and show its progress."""
    from stylemill.training.train import train

    line = LiveLine()
    events = _EventPrinter(line)

    def show(progress: TrainProgress) -> None:
        events.print_new(progress)
        line.show(progress_text(progress), steps_of(progress))

    try:
        with _stop_on_sigterm() as stop:
            return train(prepared, on_progress=show, stop=stop)
    finally:
        line.close()


@contextmanager
def _stop_on_sigterm() -> Iterator[threading.Event]:
    """Yield an event that SIGTERM sets, as preempted machines and ending pods receive it, while the body runs."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # Python runs signal handlers only in the main thread
        return
    before = signal.signal(signal.SIGTERM, lambda *_: stop.set())
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, before)


class _EventPrinter:
    """Prints every event of a training, and that it was resumed, once."""

    def __init__(self, line: LiveLine) -> None:
        self._line = line
        self._resumed_at: int | None = None
        self._num_events = 0

    def print_new(self, progress: TrainProgress) -> None:
        if progress.resumed_at is not None and progress.resumed_at != self._resumed_at:
            self._resumed_at, self._num_events = progress.resumed_at, 0
            if progress.is_resumed:
                self._line.clear()
                print(f"resumed at step {progress.resumed_at}", flush=True)
        for event in progress.events[self._num_events :]:
            self._line.clear()
            print(f"note: {event}", flush=True)
        self._num_events = len(progress.events)


def progress_text(progress: TrainProgress) -> str:
    """Return the progress line: step, loss, rate and time left."""
    if progress.resumed_at is None:
        return "starting workers"
    if not progress.images_per_s:
        return f"step {progress.step:,}/{progress.steps:,}"
    return (
        f"step {progress.step:,}/{progress.steps:,}, loss {progress.loss:.3f}, {progress.images_per_s:.2f} images/s, "
        f"{duration(progress.seconds_left)} left"
    )


def steps_of(progress: TrainProgress) -> Steps | None:
    """Return the progress as figures for a bar; None before the workers have started."""
    if progress.resumed_at is None:
        return None
    return Steps(
        done=progress.step,
        total=progress.steps,
        unit="steps",
        per_s=progress.images_per_s or None,
        seconds_left=progress.seconds_left,
        note=f"loss {progress.loss:.3f}" if progress.images_per_s else "",
    )


def write_report(config: TrainConfig, result: TrainResult) -> None:
    """Write the report of the run and print its location."""
    from stylemill.report.write import load_training_report, write_training_report
    from stylemill.storage import Storage

    storage, out = Storage(config.storage), result.layout.out
    events = result.progress.events
    print_report(lambda: write_training_report(storage, out, load_training_report(storage, out, events=events)))


def print_summary(result: TrainResult) -> None:
    """Print the result of a training run."""
    progress = result.progress
    add_result(step=progress.step, steps=progress.steps, loss=progress.loss, paths={"out": result.layout.out})
    if not result.headers:
        print(f"stopped at step {progress.step:,} of {progress.steps:,}; the same command resumes")
        return
    num_steps, all_steps = progress.step - progress.began_at, f", {progress.step:,} in all" * progress.is_resumed
    pace = f" ({progress.images_per_s:.2f} images/s at the end)" * (progress.images_per_s > 0)
    print(f"{num_steps:,} steps in {duration(result.wall_s)}{all_steps}{pace}")
    if progress.num_left_out:
        images = "content image" + "s" * (progress.num_left_out != 1)
        print(f"left out: {progress.num_left_out:,} {images}, listed in {result.layout.left_out_uri}")
    add_result(
        version=result.headers[0].version,
        paths={"style": result.layout.style_uri, "metrics": result.layout.metrics_uri},
    )
    print(f"style:    {result.layout.style_uri} ({_versions(result.headers)})")
    print(f"metrics:  {result.layout.metrics_uri}")


def _versions(headers: Sequence[StyleHeader]) -> str:
    if len(headers) == 1:
        return f"version {headers[0].version}"
    return ", ".join(f"{header.name} version {header.version}" for header in headers)
