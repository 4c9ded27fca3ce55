"""``stylemill.train`` and ``stylemill.stylize``: the jobs of the command line, with results instead of output."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from stylemill.cli.terminal import by_status
from stylemill.config import from_mapping
from stylemill.errors import ClusterError, ConfigError, StorageError
from stylemill.storage import Storage

if TYPE_CHECKING:
    from stylemill.stylizing.liveness import Progress
    from stylemill.training.tracker import TrainProgress

Location = str | os.PathLike[str]
"""A path or an fsspec URI."""

ConfigT = TypeVar("ConfigT")
ProgressT = TypeVar("ProgressT")

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """A finished training."""

    name: str
    """Name of the style."""
    version: str
    model: str
    """Location of the style model."""
    out: str
    report: str | None
    """Location of the page; None if it could not be written."""
    metrics: str
    """Location of the Parquet file with one row per step."""
    steps: int
    loss: float | None
    """Of the last step; None if the training had been finished before."""
    seconds: float
    """Of this call."""
    already_finished: bool


@dataclass(frozen=True, kw_only=True)
class StylizeResult:
    """A committed run."""

    run_id: str
    out: str
    counts: Mapping[str, int]
    """Rows by status: ``ok``, ``failed``, ``skipped``."""
    errors: Mapping[str, int]
    """Failed and skipped rows by error type."""
    images: Mapping[str, str]
    """Location of the images by style."""
    manifest: str
    """Location of the run's manifest, for ``stylemill.Manifest.open``."""
    report: str | None
    """Location of the page; None if it could not be written, or if there was nothing to do."""
    seconds: float
    """Of this call."""
    already_committed: bool


def train(
    style_image: Location | Sequence[Location],
    content: Location | Sequence[Location],
    out: Location,
    *,
    preset: str | None = None,
    on_progress: Callable[[TrainProgress], None] | None = None,
    **settings: Any,
) -> TrainResult:
    """Train a style, or one network of several; the same call, made again, resumes.

    Runs on the Ray session of this process, or on one that is started for the call.

    Args:
        style_image: location of the style image, or several for one network of several styles.
        content: photographs to train on: a folder, glob, file or list of locations, or several.
        out: output location.
        preset: ``minute``, ``quick``, ``fine``, ``calm`` or ``bold``.
        on_progress: called about twice a second, from another thread.
        **settings: further fields of ``stylemill train``, as ``steps=500``.

    Raises:
        ConfigError: a setting that is unknown or wrong.
        StylemillError: the training failed; the same call resumes.
    """
    from stylemill.report.write import load_training_report, write_training_report
    from stylemill.training.config import PRESETS, TrainConfig
    from stylemill.training.preflight import prepare
    from stylemill.training.train import train as train_prepared

    if preset is not None and preset not in PRESETS:
        raise ConfigError("preset", preset, "is not a preset", "use one of " + ", ".join(PRESETS))
    given = {"style_image": _locations(style_image), "content": _locations(content), "out": os.fspath(out)}
    config = _config(TrainConfig, {**(PRESETS[preset] if preset else {}), **given, **settings})
    prepared = prepare(config)
    with _session(needed=not prepared.finished):
        result = train_prepared(prepared, _careful(on_progress))
    if not result.headers:
        raise ClusterError("the training was stopped; the same call resumes")
    storage, layout = Storage(config.storage), result.layout
    report = None
    if not result.already_finished:
        events = result.progress.events
        report = _report(
            lambda: write_training_report(storage, layout.out, load_training_report(storage, layout.out, events=events))
        )
    return TrainResult(
        name=config.style_name,
        version=result.headers[0].version,
        model=layout.style_uri,
        out=layout.out,
        report=report,
        metrics=layout.metrics_uri,
        steps=result.progress.step,
        loss=None if result.already_finished else result.progress.loss,
        seconds=result.wall_s,
        already_finished=result.already_finished,
    )


def stylize(
    model: Location | Sequence[Location],
    input: Location,
    out: Location,
    *,
    on_progress: Callable[[Progress], None] | None = None,
    **settings: Any,
) -> StylizeResult:
    """Repaint a library; the same call, made again, resumes.

    Args:
        model: style model, or several to paint in several styles: locations or ``registry:STYLE``.
        input: a folder or prefix, a glob, one file, or a list of locations.
        out: output location.
        on_progress: called about twice a second, from another thread.
        **settings: further fields of ``stylemill stylize``, as ``strength=0.8`` or ``incremental=True``.

    Raises:
        ConfigError: a setting that is unknown or wrong.
        StylemillError: the run failed; the same call resumes.
    """
    from stylemill.report.write import load_bulk_report, write_bulk_report
    from stylemill.stylizing.config import StylizeConfig
    from stylemill.stylizing.preflight import prepare
    from stylemill.stylizing.run import stylize as paint

    given = {"model": _locations(model), "input": os.fspath(input), "out": os.fspath(out)}
    config = _config(StylizeConfig, {**given, **settings})
    prepared = prepare(config)
    with _session(needed=prepared.success is None and prepared.runner != "local"):
        result = paint(prepared, _careful(on_progress))
    storage, layout = Storage(config.storage), result.layout
    report = None
    if not result.already_committed:
        report = _report(lambda: write_bulk_report(storage, layout, load_bulk_report(storage, layout)))
    styles = [(style["name"], style.get("tree") or style["name"]) for style in result.success.styles]
    return StylizeResult(
        run_id=layout.run_id,
        out=layout.out,
        counts=by_status(result.success.counts),
        errors=result.errors,
        images={name: layout.images_uri(tree) for name, tree in styles},
        manifest=layout.manifest_uri,
        report=report,
        seconds=result.wall_s,
        already_committed=result.already_committed,
    )


def _locations(given: Location | Sequence[Location]) -> list[str]:
    return [os.fspath(given)] if isinstance(given, (str, os.PathLike)) else [os.fspath(one) for one in given]


def _config(config_type: type[ConfigT], settings: Mapping[str, Any]) -> ConfigT:
    paths = {name: os.fspath(value) if isinstance(value, os.PathLike) else value for name, value in settings.items()}
    return from_mapping(config_type, paths)


@contextmanager
def _session(*, needed: bool) -> Iterator[None]:
    """Use the Ray session of this process, or one of our own, while the body runs."""
    if not needed:
        yield
        return
    from stylemill.cli.session import is_connected, ray_session

    if is_connected():
        yield
        return
    with ray_session():
        yield


def _careful(on_progress: Callable[[ProgressT], None] | None) -> Callable[[ProgressT], None] | None:
    """Return a callback that is not called again after it raised: a job does not fail for its progress."""
    if on_progress is None:
        return None
    is_broken = False

    def call(progress: ProgressT) -> None:
        nonlocal is_broken
        if is_broken:
            return
        try:
            on_progress(progress)
        except Exception:
            is_broken = True
            log.exception("on_progress raised and is not called again")

    return call


def _report(write: Callable[[], str]) -> str | None:
    try:
        return write()
    except StorageError:  # the results exist; a caller sees that the page does not
        return None
