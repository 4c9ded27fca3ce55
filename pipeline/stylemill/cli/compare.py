"""``stylemill compare``: decide which of two styles is better."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from stylemill.cli.arguments import parse
from stylemill.errors import ConfigError, ObjectNotFound, PathConflict
from stylemill.evaluation.config import check_installed
from stylemill.experiments.config import CompareConfig

if TYPE_CHECKING:
    from stylemill.experiments.decision import Comparison
    from stylemill.storage import Storage


def main(arguments: Sequence[str]) -> int:
    """Run the verb."""
    config = parse(CompareConfig, "compare", "Decide which of two styles is better.", arguments)
    return 0 if config is None else run(config)


def run(config: CompareConfig) -> int:
    """Compare, print and write the result; return 0, or 1 if there is too little data for a decision."""
    from stylemill.storage import Storage
    from stylemill.storage.user_errors import write_config

    check_installed()
    storage = Storage(config.storage)
    if config.out:
        write_config(storage, config, "compare")
    return _run_live(storage, config) if config.live else _run_paired(storage, config)


def _run_paired(storage: Storage, config: CompareConfig) -> int:
    from stylemill.experiments.ballot import read_votes
    from stylemill.experiments.decision import compare
    from stylemill.experiments.design import choose_models, read_evaluations, resolve_model_label
    from stylemill.experiments.ranking import rank
    from stylemill.report.decision_pages import render_comparison_report

    table = read_evaluations(storage, config.evaluation)
    named = (config.champion, config.candidate)
    names = (name and resolve_model_label(storage, name, config.registry) for name in named)
    champion, candidate = choose_models(table, *names)
    votes = read_votes(storage, config.votes)
    comparison = compare(table, champion=champion, candidate=candidate, rule=config.rule, votes=votes)
    ranking = rank(votes, alpha=config.rule.alpha, seed=config.rule.seed) if votes else None
    _print(comparison)
    if ranking is not None:
        for ranked in ranking.models:
            low, high = ranked.interval
            print(f"votes:  {ranked.model}: strength {ranked.strength:+.2f} ({low:+.2f} to {high:+.2f})")
        print(f"voters: {ranking.agreement_sentence}")
    if config.out:
        _write(storage, config.out, comparison.to_json(), render_comparison_report(comparison, ranking))
    return 1 if comparison.decision == "too_few" else 0


def _print(comparison: Comparison) -> None:
    for metric in comparison.metrics:
        found = metric.result
        print(
            f"{metric.metric}: {comparison.champion} {metric.mean_champion:.4g}, {comparison.candidate} "
            f"{metric.mean_candidate:.4g}; difference {found.effect:+.3g} ({found.interval[0]:+.3g} to "
            f"{found.interval[1]:+.3g}), p {metric.p_adjusted:.2g}, "
            f"better with probability {found.probability_better:.3f}"
        )
    if comparison.preference is not None:
        votes = comparison.preference
        print(
            f"preference: candidate on {votes.win_rate:.0%} of {votes.sample_size} images ({votes.interval[0]:.0%} to "
            f"{votes.interval[1]:.0%}), {votes.num_ties} ties, {votes.num_votes} votes, p {votes.p_value:.2g}"
        )
    print(f"verdict: {comparison.decision.replace('_', ' ')}: {comparison.reason}")


def _run_live(storage: Storage, config: CompareConfig) -> int:
    from stylemill.experiments.live_split import compare_live

    assert config.live is not None
    rule = config.rule
    found = compare_live(
        _live_rows(storage, config.live),
        alpha=rule.alpha,
        power=rule.power,
        minimal_effect=rule.minimal_effect,
        candidate_share=config.candidate_share,
        experiment=config.experiment,
    )
    rates = found.rates
    low, high = found.interval
    print(
        f"success: champion {rates.champion_rate:.2%} of {found.num_champion:,}, candidate {rates.candidate_rate:.2%} "
        f"of {found.num_candidate:,}; difference {found.effect:+.2%} ({low:+.2%} to {high:+.2%})"
    )
    print(f"verdict: {found.decision.replace('_', ' ')}: {found.reason}")
    if config.out:
        _write(storage, config.out, json.dumps(asdict(found), indent=1), None)
    return 1 if found.decision in ("too_few", "invalid") else 0


def _live_rows(storage: Storage, uri: str) -> list[dict[str, Any]]:
    import pyarrow as pa

    from stylemill.manifest.schema import read_parquet
    from stylemill.storage import resolve

    try:
        table = read_parquet(storage.read_bytes(resolve(uri)))
        return list(table.select(["unit", "variant", "success"]).to_pylist())
    except (ObjectNotFound, PathConflict):
        raise ConfigError("live", uri, "does not exist", "give a Parquet file") from None
    except (pa.ArrowInvalid, KeyError) as error:
        problem = f"is not a Parquet file with the columns unit, variant, success ({error})"
        raise ConfigError("live", uri, problem, "write one row per unit with these columns") from None


def _write(storage: Storage, out: str, text: str, page: str | None) -> None:
    from stylemill.storage import join, resolve

    out = resolve(out)
    storage.write_bytes(join(out, "comparison.json"), text.encode())
    print(f"result: {join(out, 'comparison.json')}")
    if page is not None:
        storage.write_bytes(join(out, "report", "index.html"), page.encode())
        print(f"page:   {join(out, 'report', 'index.html')}")
