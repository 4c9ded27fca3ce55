"""From the outcomes below a location to their page."""

from __future__ import annotations

from collections import Counter

from pipeline.errors import ObjectNotFound
from pipeline.evaluation.schema import model_label, read_measurements
from pipeline.report.pictures import embed
from pipeline.report.retraining_page import Comparison, DecisionCard, RetrainingStory, render_retraining_report
from pipeline.report.write import style_card
from pipeline.retraining.config import RetrainConfig
from pipeline.retraining.firing import FiringLayout
from pipeline.retraining.outcome import Outcome, load_outcomes
from pipeline.storage import Storage, join, resolve

MAX_DECISIONS = 30
"""Newest decisions on the page."""
PICTURES_OF_A_DECISION = 2
MAX_SIDE_PX = 360


def write_retraining_page(storage: Storage, config: RetrainConfig, registry: str) -> str:
    """Write ``OUT/report/index.html`` about all decisions on a style and return its location.

    Raises:
        StorageError: storage failed beyond its retries.
    """
    out, style = resolve(config.out), config.style_name
    outcomes = [outcome for outcome in load_outcomes(storage, out) if outcome.style == style]
    story = RetrainingStory(
        style=style_card(style, storage.read_bytes(resolve(config.style_image))),
        champion=outcomes[-1].champion if outcomes else None,
        decisions=[_card(storage, out, outcome) for outcome in outcomes[-MAX_DECISIONS:]],
        registry=registry,
        counts=Counter(outcome.decision for outcome in outcomes),
    )
    uri = join(out, "report", "index.html")
    storage.write_bytes(uri, render_retraining_report(story).encode())
    return uri


def _card(storage: Storage, out: str, outcome: Outcome) -> DecisionCard:
    return DecisionCard(
        firing=outcome.firing,
        decision=outcome.decision,
        champion=outcome.champion,
        candidate=outcome.candidate,
        previous_champion=outcome.previous_champion,
        reason=outcome.reason,
        decided_at=outcome.decided_at,
        evidence=outcome.evidence,
        comparisons=_comparisons(storage, FiringLayout(out=out, name=outcome.firing), outcome),
    )


def _comparisons(storage: Storage, layout: FiringLayout, outcome: Outcome) -> list[Comparison]:
    """Return the images on which candidate and champion differ most in total loss, where they were compared."""
    before, candidate = outcome.previous_champion, outcome.candidate
    if before is None or candidate is None:
        return []
    try:
        table = read_measurements(storage, layout.evaluation_uri)
    except (ObjectNotFound, ValueError):  # not compared, or by another version whose columns differ
        return []
    rows = [row for row in table.to_pylist() if row["status"] == "ok"]
    by_key: dict[str, dict[str, dict]] = {}
    for row in rows:
        by_key.setdefault(row["key"], {})[row["model"]] = row
    labels = [
        (model_label(outcome.style, version), what)
        for version, what in ((before, "champion before"), (candidate, "candidate"))
    ]
    both = {key: found for key, found in by_key.items() if all(label in found for label, _ in labels)}
    (first, _), (second, _) = labels
    ordered = sorted(both, key=lambda key: -abs(both[key][first]["total_loss"] - both[key][second]["total_loss"]))
    return [_comparison(storage, key, both[key], labels) for key in ordered[:PICTURES_OF_A_DECISION]]


def _comparison(storage: Storage, key: str, found: dict[str, dict], labels: list[tuple[str, str]]) -> Comparison:
    source_uri = found[labels[0][0]]["source_picture_uri"]
    pictures = [("source", embed(storage.read_bytes(source_uri), alt=key, max_side_px=MAX_SIDE_PX))]
    for label, what in labels:
        row = found[label]
        picture = embed(storage.read_bytes(row["picture_uri"]), alt=f"{key}, {what}", max_side_px=MAX_SIDE_PX)
        pictures.append((f"{what}, loss {row['total_loss']:.3g}", picture))
    return Comparison(key=key, pictures=pictures)
