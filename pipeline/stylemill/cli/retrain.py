"""``stylemill retrain``: train a candidate, and make it the champion if it is better."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from stylemill.cli.arguments import parse
from stylemill.cli.output import result as add_result
from stylemill.cli.session import TERMINATED
from stylemill.cli.terminal import print_report
from stylemill.retraining.config import RetrainConfig
from stylemill.training.config import PRESETS

if TYPE_CHECKING:
    from stylemill.retraining.retrain import RetrainResult
    from stylemill.training.config import TrainConfig


def main(arguments: Sequence[str]) -> int:
    """Run the verb; return 0 once a decision is made, or if another firing is running."""
    description = "Train a candidate and promote it if it is better; running the same command again resumes."
    config = parse(RetrainConfig, "retrain", description, arguments, presets=PRESETS)
    return 0 if config is None else run(config)


def run(config: RetrainConfig) -> int:
    """Run one firing, print its stages and return the exit code."""
    from stylemill.retraining.retrain import retrain

    result = retrain(config, train_candidate, lambda stage: print(stage, flush=True))
    if result.held_by is not None:
        add_result(decision=None, held_by=result.held_by)
        print(f"nothing was done: {result.held_by}")
        return 0
    if result.outcome is None:
        return TERMINATED
    print_outcome(result)
    if result.is_new:
        write_page(config)
    return 0


def train_candidate(config: TrainConfig) -> bool:
    """Train, or resume; return False if SIGTERM stopped it."""
    from stylemill.cli.session import ray_session
    from stylemill.cli.train import learn, print_summary, write_report
    from stylemill.training.preflight import prepare

    prepared = prepare(config)
    if prepared.finished:
        return True
    with ray_session():
        result = learn(prepared)
    print_summary(result)
    if not result.headers:
        return False
    write_report(config, result)
    return True


def print_outcome(result: RetrainResult) -> None:
    """Print what was decided, and why."""
    outcome = result.outcome
    assert outcome is not None
    add_result(
        style=outcome.style,
        decision=outcome.decision,
        reason=outcome.reason,
        champion=outcome.champion,
        is_new=result.is_new,
        is_notified=result.is_notified,
    )
    if not result.is_new:
        decided_at = f"{outcome.decided_at[:16].replace('T', ' ')} UTC"
        print(f"nothing new since {decided_at}, when {outcome.style} was {outcome.decision} ({outcome.reason})")
    else:
        print(f"{outcome.style}: {outcome.decision} ({outcome.reason})")
    print(f"champion: {outcome.champion or 'none'}")
    if not result.is_notified:
        print("note: the webhook did not accept the outcome; the next firing tries again")


def write_page(config: RetrainConfig) -> None:
    """Write the page about all decisions and print its location."""
    from stylemill.registry import registry_uri
    from stylemill.retraining.reporting import write_retraining_page
    from stylemill.storage import Storage

    storage, registry = Storage(config.storage), registry_uri(config.registry, "retraining")
    print_report(lambda: write_retraining_page(storage, config, registry))
