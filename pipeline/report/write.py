"""From a run's tables and images to its page: reads what the page shows and puts the page in its place."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from pipeline.errors import StorageError
from pipeline.manifest.layout import RunLayout
from pipeline.report.pages import (
    BulkStory,
    DemoStory,
    Details,
    StyleCard,
    TrainingStory,
    render_bulk_report,
    render_demo_report,
    render_training_report,
)
from pipeline.report.pictures import Pair, Picture, embed, palette
from pipeline.report.summary import choose_candidates, summarize
from pipeline.storage import Storage, join

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


def training_story(
    *,
    style_name: str,
    style_image: bytes | None,
    metrics: pa.Table,
    samples: Sequence[tuple[str, bytes]] = (),
    events: Sequence[str] = (),
    facts: Mapping[str, object] | None = None,
    config: Mapping[str, Any] | None = None,
) -> TrainingStory:
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
        The story that ``render_training_report`` takes.
    """
    chosen = samples if len(samples) <= 3 else [samples[0], samples[(len(samples) - 1) // 2], samples[-1]]
    pictures: list[tuple[str, Picture]] = []
    for caption, data in chosen:
        try:
            alt = f"Photographs above, paintings below, {caption}"
            pictures.append((caption, embed(data, alt=alt, max_side_px=_SAMPLE_SIDE_PX)))
        except OSError as error:
            log.warning("the page leaves out the samples of %s: %s", caption, error)
    return TrainingStory(
        style=style_card(style_name, style_image),
        metrics=metrics,
        samples=pictures,
        events=events,
        details=Details(facts=facts or {}, config=config or {}),
    )


def bulk_story(
    storage: Storage,
    *,
    run_id: str,
    parts: pa.Table | Iterable[pa.Table],
    style_images: Mapping[str, bytes | None] | None = None,
    facts: Mapping[str, object] | None = None,
    config: Mapping[str, Any] | None = None,
    num_pairs: int = NUM_PAIRS,
    first_key: str | None = None,
) -> BulkStory:
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
        The story that ``render_bulk_report`` takes. Pairs whose images cannot be read are left out.
    """
    summary = summarize(parts)
    rows = choose_candidates(summary, num_pairs, first_key=first_key)
    pairs = [pair for pair in (_load_pair(storage, row) for row in rows) if pair is not None]
    images = style_images or {}
    names = [name for name, _ in summary.styles.most_common(20)] or list(images)
    return BulkStory(
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


def write_training_report(storage: Storage, out: str, story: TrainingStory) -> str:
    """Write ``OUT/report/index.html`` and return its location."""
    return _write(storage, join(out, "report", "index.html"), render_training_report(story))


def write_bulk_report(storage: Storage, layout: RunLayout, story: BulkStory) -> str:
    """Write ``OUT/runs/RUN_ID/report/index.html`` and return its location."""
    return _write(storage, layout.report_uri, render_bulk_report(story))


def write_demo_report(storage: Storage, out: str, story: DemoStory) -> str:
    """Write ``OUT/report/index.html`` and return its location."""
    return _write(storage, join(out, "report", "index.html"), render_demo_report(story))


def _write(storage: Storage, uri: str, page: str) -> str:
    storage.write_bytes(uri, page.encode("utf-8"))
    return uri
