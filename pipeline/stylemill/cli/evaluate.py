"""``stylemill evaluate``: measure what styles do to the same images."""

from __future__ import annotations

from collections.abc import Sequence

from stylemill.cli.arguments import parse
from stylemill.cli.output import result as add_result
from stylemill.cli.terminal import LiveLine, Steps
from stylemill.evaluation.config import EvaluateConfig


def main(arguments: Sequence[str]) -> int:
    """Run the verb."""
    config = parse(EvaluateConfig, "evaluate", "Measure what one or more styles do to the same images.", arguments)
    return 0 if config is None else run(config)


def run(config: EvaluateConfig) -> int:
    """Measure, write the table, the pictures and the page, and return the exit code."""
    from stylemill.evaluation.measure import evaluate, prepare
    from stylemill.evaluation.optimize import measure_yardstick
    from stylemill.evaluation.reporting import write_evaluation_page
    from stylemill.evaluation.schema import table_uri
    from stylemill.report.evaluation_pages import metric_rows
    from stylemill.report.rendering import number
    from stylemill.storage import Storage

    storage = Storage(config.storage)
    prepared = prepare(storage, config)
    num = len(prepared.models)
    models = f"{num} model" + "s" * (num != 1)
    print(f"{len(prepared.sources):,} images, {models}, loss {config.judge.loss_network}", flush=True)
    line = LiveLine()

    def show(done: int, of: int) -> None:
        line.show(f"{done:,}/{of:,} images", Steps(done=done, total=of, unit="images"))

    try:
        table = evaluate(storage, prepared, on_progress=show)
        yardstick = measure_yardstick(storage, prepared, table, line.show) if config.yardstick else ()
    finally:
        line.close()
    failed = table.filter([status != "ok" for status in table["status"].to_pylist()])
    for row in failed.slice(0, 20).to_pylist():
        print(f"  {row['status']}: {row['key']}: {row['error']}")
    for row in metric_rows(table):
        figures = ", ".join(f"{label} {number(mean)} ± {number(error)}" for label, mean, error in row.means)
        print(f"{row.name:<22} {figures}")
    for result in yardstick:
        print(result.sentence)
    print(f"table:  {table_uri(prepared.out)}")
    page = write_evaluation_page(storage, prepared, table, yardstick)
    print(f"page:   {page}")
    add_result(
        counts={"rows": table.num_rows, "failed": failed.num_rows},
        metrics={row.name: {label: mean for label, mean, _ in row.means} for row in metric_rows(table)},
        paths={"table": table_uri(prepared.out), "page": page},
    )
    return 0 if failed.num_rows < table.num_rows else 3
