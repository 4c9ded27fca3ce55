"""Rollbacks as outcomes, beside those of the firings."""

from __future__ import annotations

from dataclasses import asdict

from pipeline.registry import Promotion, Registry
from pipeline.retraining.firing import FiringLayout
from pipeline.retraining.outcome import Evidence, Outcome, load_outcomes
from pipeline.storage import Storage, resolve


def roll_back(
    storage: Storage, registry: Registry, style: str, *, reason: str, to: str | None = None, out: str | None = None
) -> Outcome:
    """Make an earlier champion the champion again.

    Args:
        storage: where the outcomes are.
        registry: where the style is.
        style: the style.
        reason: why, for people.
        to: its version; by default the newest earlier champion that still exists.
        out: output location of the style's retraining, where the outcome is left; the next firing leaves it otherwise.

    Returns:
        The decision, as firings leave theirs.

    Raises:
        ConfigError: there is nothing to roll back to.
        RegistryError: its model file is missing or damaged.
        RunConflict: somebody changed the champion meanwhile.
        StorageError: storage failed beyond its retries.
    """
    outcome = _outcome_of(registry.rollback(style, reason=reason, to=to))
    if out is not None:
        _leave(storage, out, outcome)
    return outcome


def record_rollbacks(storage: Storage, registry: Registry, style: str, out: str) -> None:
    """Leave the outcomes of rollbacks that have none here: they were made without ``out``, or killed before they told.

    Those from before the first decision here are left out.
    """
    known = [outcome for outcome in load_outcomes(storage, out) if outcome.style == style]
    if not known:
        return
    names, first_at = {outcome.firing for outcome in known}, min(outcome.begun_at for outcome in known)
    for promotion in registry.history(style):
        outcome = _outcome_of(promotion)
        if promotion.kind == "rolled_back" and outcome.firing not in names and promotion.at >= first_at:
            _leave(storage, out, outcome)


def _leave(storage: Storage, out: str, outcome: Outcome) -> None:
    storage.create_bytes(FiringLayout(out=resolve(out), name=outcome.firing).outcome_uri, outcome.to_bytes())


def _outcome_of(promotion: Promotion) -> Outcome:
    """Return a rollback as an outcome; the same rollback always gives the same one."""
    return Outcome(
        firing=f"rollback-{promotion.style}-{promotion.number}",
        style=promotion.style,
        decision="rolled_back",
        champion=promotion.version,
        candidate=promotion.previous_version,
        previous_champion=promotion.previous_version,
        reason=promotion.reason,
        evidence=asdict(Evidence()),
        begun_at=promotion.at,
        decided_at=promotion.at,
    )
