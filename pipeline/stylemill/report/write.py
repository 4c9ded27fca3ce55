"""From a run's tables and images to its page: reads what the page shows and puts the page in its place.

From a run's folder to its report: everything a page shows is read back from what the run wrote.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from stylemill.errors import ConfigError, StorageError
from stylemill.manifest.layout import RunLayout
from stylemill.manifest.read import iter_parts, load_success
from stylemill.report.pictures import Pair, Picture, embed, palette
from stylemill.report.run_pages import (
    BulkReport,
    DemoReport,
    Details,
    StyleCard,
    TrainingReport,
    render_bulk_report,
    render_demo_report,
    render_training_report,
)
from stylemill.report.summary import choose_candidates, summarize
from stylemill.storage import Storage, join, resolve
from stylemill.style_model import StyleHeader, load_style_header

log = logging.getLogger(__name__)

NUM_PAIRS = 12
_SAMPLE_SIDE_PX = 1200


def style_card(name: str, image: bytes | None) -> StyleCard:
    """Return a style as pages show it; an image that cannot be read is left out with a warning."""
    if image is None:
        return StyleCard(name=name)
    try:
        picture = embed(image, alt=f"The style image of {name}")
        return StyleCard(name=name, picture=picture, colours=palette(image))
    except OSError as error:
        log.warning("the page shows no picture of the style %s: %s", name, error)
        return StyleCard(name=name)


def training_report(
    *,
    style_name: str,
    style_image: bytes | None,
    metrics: pa.Table,
    samples: Sequence[tuple[str, bytes]] = (),
    events: Sequence[str] = (),
    facts: Mapping[str, object] | None = None,
    config: Mapping[str, Any] | None = None,
) -> TrainingReport:
    """Gather what the page about a training run shows.

    Args:
        style_name: the style.
        style_image: its picture, encoded; None when it is not at hand.
        metrics: rows of ``metrics.parquet``.
        samples: (caption, encoded grid of contents over results), oldest first; at most three are shown.
        events: resumes, rollbacks and the like, one sentence each.
        facts: short facts by name for the foot of the page.
        config: the config as it ran.

    Returns:
        The report that ``render_training_report`` takes.
    """
    chosen = samples if len(samples) <= 3 else [samples[0], samples[(len(samples) - 1) // 2], samples[-1]]
    pictures: list[tuple[str, Picture]] = []
    for caption, data in chosen:
        try:
            alt = f"Photographs above, paintings below, {caption}"
            pictures.append((caption, embed(data, alt=alt, max_side_px=_SAMPLE_SIDE_PX)))
        except OSError as error:
            log.warning("the page leaves out the samples of %s: %s", caption, error)
    return TrainingReport(
        style=style_card(style_name, style_image),
        metrics=metrics,
        samples=pictures,
        events=events,
        details=Details(facts=facts or {}, config=config or {}),
    )


def bulk_report(
    storage: Storage,
    *,
    run_id: str,
    parts: pa.Table | Iterable[pa.Table],
    style_images: Mapping[str, bytes | None] | None = None,
    facts: Mapping[str, object] | None = None,
    config: Mapping[str, Any] | None = None,
    num_pairs: int = NUM_PAIRS,
    first_key: str | None = None,
) -> BulkReport:
    """Gather what the page about a bulk run shows; reads the images of its pairs.

    Args:
        storage: where sources and outputs are read from.
        run_id: the run.
        parts: rows of its manifest, whole or part by part.
        style_images: encoded style images by style name, None where one is not at hand.
        facts: short facts by name for the foot of the page.
        config: the config as it ran.
        num_pairs: how many pairs the page shows at most.
        first_key: key of the pair that opens the page, if it is among the run's images.

    Returns:
        The report that ``render_bulk_report`` takes. Pairs whose images cannot be read are left out.
    """
    summary = summarize(parts)
    rows = choose_candidates(summary, num_pairs, first_key=first_key)
    pairs = [pair for pair in (_load_pair(storage, row) for row in rows) if pair is not None]
    images = style_images or {}
    names = [name for name, _ in summary.styles.most_common(20)] or list(images)
    return BulkReport(
        run_id=run_id,
        summary=summary,
        styles=[style_card(name, images.get(name)) for name in names],
        pairs=pairs,
        details=Details(facts=facts or {}, config=config or {}),
    )


def _load_pair(storage: Storage, row: Mapping[str, Any]) -> Pair | None:
    key = row["key"]
    try:
        before = embed(storage.read_bytes(row["source_uri"]), alt=f"{key}, the original")
        after = embed(storage.read_bytes(row["output_uri"]), alt=f"{key}, repainted in {row['style']}")
    except (StorageError, OSError) as error:
        log.warning("the page leaves out %s: %s", key, error)
        return None
    note = f"{row['width_px']} × {row['height_px']} px, {(row['output_format'] or '').upper()}"
    return Pair(name=key, before=before, after=after, note=note)


def write_training_report(storage: Storage, out: str, report: TrainingReport) -> str:
    """Write ``OUT/report/index.html`` and return its location."""
    return _write(storage, join(out, "report", "index.html"), render_training_report(report))


def write_bulk_report(storage: Storage, layout: RunLayout, report: BulkReport) -> str:
    """Write ``OUT/runs/RUN_ID/report/index.html`` and return its location."""
    return _write(storage, layout.report_uri, render_bulk_report(report))


def write_demo_report(storage: Storage, out: str, report: DemoReport) -> str:
    """Write ``OUT/report/index.html`` and return its location."""
    return _write(storage, join(out, "report", "index.html"), render_demo_report(report))


def _write(storage: Storage, uri: str, page: str) -> str:
    storage.write_bytes(uri, page.encode("utf-8"))
    return uri


def load_bulk_report(
    storage: Storage,
    layout: RunLayout,
    *,
    facts: Mapping[str, object] | None = None,
    first_key: str | None = None,
) -> BulkReport:
    """Read the story of a committed bulk run, one part of its manifest at a time.

    Args:
        storage: where the run lies.
        layout: of the run.
        facts: more to say at the foot of the page.
        first_key: key of the pair that opens the page.

    Raises:
        ConfigError: the run is not committed.
        StorageError: storage failed beyond its retries.
    """
    success = load_success(storage, layout)
    headers = [load_style_header(storage, layout.model_uri(style["name"])) for style in success.styles]
    said: dict[str, object] = {
        "run": layout.run_id,
        "fingerprint": success.fingerprint,
        **{f"model {header.name}": f"version {header.version}, SHA-256 {header.sha256}" for header in headers},
        "manifest": layout.manifest_uri,
        "committed": success.finished_at,
    }
    return bulk_report(
        storage,
        run_id=layout.run_id,
        parts=iter_parts(storage, layout, success),
        style_images={header.name: _style_image(storage, header) for header in headers},
        facts={**said, **(facts or {})},
        config=_config(storage, layout.config_uri),
        first_key=first_key,
    )


def load_training_report(
    storage: Storage, out: str, *, facts: Mapping[str, object] | None = None, events: Sequence[str] = ()
) -> TrainingReport:
    """Read the story of a finished training run.

    Args:
        storage: where the run lies.
        out: its output location.
        facts: more to say at the foot of the page.
        events: resumes, rollbacks and the like, one sentence each.

    Raises:
        ConfigError: there is no style model.
        StorageError: storage failed beyond its retries.
    """
    header = load_style_header(storage, join(out, "style.safetensors"))
    found = sorted(item.uri for item in storage.list_objects(join(out, "samples")))
    samples = [(uri, _step(uri)) for uri in found if _step(uri) is not None]
    said: dict[str, object] = {
        "style": f"{header.name}, version {header.version}",
        "SHA-256": header.sha256,
        "style image's SHA-256": header.metadata.get("style_image_sha256", "–"),
        "loss network": header.metadata.get("loss_network", "–"),
        "loss network's SHA-256": header.metadata.get("loss_network_sha256", "–"),
        "trained at": header.metadata.get("trained_at", "–"),
    }
    return training_report(
        style_name=header.name,
        style_image=_style_image(storage, header),
        metrics=pq.read_table(pa.BufferReader(storage.read_bytes(join(out, "metrics.parquet")))),
        samples=[(f"step {step:,}", storage.read_bytes(uri)) for uri, step in samples],
        events=events,
        facts={**said, **(facts or {})},
        config=_config(storage, join(out, "config.yaml")),
    )


def _step(uri: str) -> int | None:
    stem = uri.rpartition("/")[2].removeprefix("step-").removesuffix(".jpg")
    return int(stem) if stem.isdecimal() else None


def _config(storage: Storage, uri: str) -> Mapping[str, Any]:
    config = yaml.safe_load(storage.read_bytes(uri))
    return config if isinstance(config, Mapping) else {}


def _style_image(storage: Storage, header: StyleHeader) -> bytes | None:
    """Return the style image from where it was trained, if it is still there and still the same."""
    settings = header.metadata.get("config")
    uri = settings.get("style_image") if isinstance(settings, Mapping) else None
    if not isinstance(uri, str):
        return None
    try:
        data = storage.read_bytes(resolve(uri))
    except (StorageError, ConfigError) as error:
        log.info("the page shows no picture of the style %s: %s", header.name, error)
        return None
    same = hashlib.sha256(data).hexdigest() == header.metadata.get("style_image_sha256")
    return data if same else None
