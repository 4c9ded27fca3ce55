"""Reports of retraining: the HTML page about all decisions, and the webhook that receives each outcome.

A post to the webhook is retried and signed; neither its body nor the log contains a secret.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import random
import time
import urllib.error
import urllib.request

from stylemill.errors import ObjectNotFound
from stylemill.evaluation.schema import model_label, read_measurements
from stylemill.report.decision_pages import DecisionCard, ImageComparison, RetrainingReport, render_retraining_report
from stylemill.report.pictures import embed
from stylemill.report.write import style_card
from stylemill.retraining.config import RetrainConfig
from stylemill.retraining.firing import FiringLayout
from stylemill.retraining.outcome import Outcome, load_outcomes
from stylemill.storage import Storage, join, resolve

log = logging.getLogger(__name__)

MAX_DECISIONS = 30
"""Decisions on the page, the newest ones."""
IMAGES_PER_DECISION = 2
MAX_SIDE_PX = 360

SECRET_VARIABLE = "STYLEMILL_WEBHOOK_SECRET"
SIGNATURE_HEADER = "X-Stylemill-Signature"
MAX_ATTEMPTS = 4
FIRST_PAUSE_S = 1.0
TIMEOUT_S = 10.0


def write_retraining_page(storage: Storage, config: RetrainConfig, registry: str) -> str:
    """Write ``OUT/report/index.html`` about all decisions on a style and return its location.

    Raises:
        StorageError: storage failed beyond its retries.
    """
    out, style = resolve(config.out), config.style_name
    outcomes = [outcome for outcome in load_outcomes(storage, out) if outcome.style == style]
    report = RetrainingReport(
        style=style_card(style, storage.read_bytes(resolve(config.style_image[0]))),
        champion=outcomes[-1].champion if outcomes else None,
        decisions=[_card(storage, out, outcome) for outcome in outcomes[-MAX_DECISIONS:]],
        num_decisions=len(outcomes),
        registry=registry,
    )
    uri = join(out, "report", "index.html")
    storage.write_bytes(uri, render_retraining_report(report).encode())
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


def _comparisons(storage: Storage, layout: FiringLayout, outcome: Outcome) -> list[ImageComparison]:
    """Return the images on which candidate and champion differ most in total loss; none if they were not compared."""
    before, candidate = outcome.previous_champion, outcome.candidate
    if before is None or candidate is None:
        return []
    try:
        table = read_measurements(storage, layout.evaluation_uri)
    except (ObjectNotFound, ValueError):  # not compared, or by a version with other columns
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
    return [_comparison(storage, key, both[key], labels) for key in ordered[:IMAGES_PER_DECISION]]


def _comparison(storage: Storage, key: str, found: dict[str, dict], labels: list[tuple[str, str]]) -> ImageComparison:
    source_uri = found[labels[0][0]]["source_picture_uri"]
    pictures = [("source", embed(storage.read_bytes(source_uri), alt=key, max_side_px=MAX_SIDE_PX))]
    for label, what in labels:
        row = found[label]
        picture = embed(storage.read_bytes(row["picture_uri"]), alt=f"{key}, {what}", max_side_px=MAX_SIDE_PX)
        pictures.append((f"{what}, loss {row['total_loss']:.3g}", picture))
    return ImageComparison(key=key, pictures=pictures)


def signature(body: bytes, secret: str) -> str:
    """Return the value of the signature header: ``sha256=`` and the HMAC-SHA256 of the body in hex."""
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def notify(url: str, body: bytes, secret: str | None, *, first_pause_s: float = FIRST_PAUSE_S) -> bool:
    """Post a body to a webhook; return whether it was accepted (a status from 200 to 299).

    Refusals that are permanent (4xx except 408 and 429) are not retried.

    Args:
        url: URL of the webhook.
        body: JSON.
        secret: key of the signature; None sends no signature.
        first_pause_s: seconds before the second attempt; the pause doubles after each attempt, with jitter.
    """
    headers = {"Content-Type": "application/json", "User-Agent": "stylemill"}
    if secret:
        headers[SIGNATURE_HEADER] = signature(body, secret)
    host = urllib.request.Request(url).host  # the path or query of a webhook may be its secret
    for attempt in range(MAX_ATTEMPTS):
        try:
            request = urllib.request.Request(url, data=body, headers=headers, method="POST")
            with urllib.request.urlopen(request, timeout=TIMEOUT_S):
                return True
        except urllib.error.HTTPError as error:
            problem = f"answered {error.code}"
            if 400 <= error.code < 500 and error.code not in (408, 429):
                log.warning("the webhook at %s %s", host, problem)
                return False
        except OSError as error:
            problem = f"did not answer ({type(error).__name__})"
        log.warning("the webhook at %s %s, attempt %d of %d", host, problem, attempt + 1, MAX_ATTEMPTS)
        if attempt + 1 < MAX_ATTEMPTS:
            time.sleep(first_pause_s * 2**attempt * random.uniform(0.5, 1.0))
    return False
