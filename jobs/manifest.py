"""``stylemill manifest verify|summary URI``: check a committed manifest, or say what it holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import datetime

from jobs.arguments import parse, subcommand
from jobs.terminal import LiveLine, counts_text, duration
from pipeline.errors import ConfigError
from pipeline.storage import StorageOptions

SUBCOMMANDS = {
    "verify": "check rows against the plan, objects against their SHA-256, and look for unknown objects",
    "summary": "print counts, errors and throughput",
}
PROBLEMS_SHOWN = 20
PARTS_WITHOUT_RAY = 2
"""Manifests of so few parts are verified in this process: starting Ray would take longer."""


@dataclass(frozen=True, kw_only=True)
class ManifestConfig:
    """Which manifest."""

    uri: str
    """OUT, OUT/manifests/RUN_ID or OUT/runs/RUN_ID of a committed run."""

    storage: StorageOptions = field(default_factory=StorageOptions)

    def __post_init__(self) -> None:
        if not self.uri:
            raise ConfigError("uri", self.uri, "is empty", "give OUT or OUT/manifests/RUN_ID")


def main(arguments: Sequence[str]) -> int:
    """Run the verb; ``verify`` returns 1 if anything is not as the manifest says."""
    chosen = subcommand("manifest", SUBCOMMANDS, arguments)
    if chosen is None:
        return 0
    name, rest = chosen
    config = parse(ManifestConfig, f"manifest {name}", SUBCOMMANDS[name], rest, positional="uri")
    if config is None:
        return 0
    return verify(config) if name == "verify" else summary(config)


def verify(config: ManifestConfig) -> int:
    """Check a manifest and print what is wrong."""
    from jobs.session import ray_session
    from pipeline.auditing import verify as auditing
    from pipeline.manifest.read import find_run, load_success
    from pipeline.storage import Storage

    storage = Storage(config.storage)
    layout = find_run(storage, config.uri)
    is_small = len(load_success(storage, layout).parts) <= PARTS_WITHOUT_RAY
    line = LiveLine()
    with nullcontext() if is_small else ray_session():
        found = auditing.verify(
            config.storage, layout, lambda done, total: line.show(f"{done:,}/{total:,} parts checked")
        )
    line.close()
    print(f"{found.num_rows:,} rows, {found.num_objects:,} objects, {found.num_bytes / 1e6:,.1f} MB checked")
    for problem in found.problems[:PROBLEMS_SHOWN]:
        about = f" (key {problem.key!r}, style {problem.style!r})" if problem.key else ""
        print(f"  {problem.kind}: {problem.uri!r}{about}: {problem.detail}")
    if len(found.problems) > PROBLEMS_SHOWN:
        print(f"  ... and {len(found.problems) - PROBLEMS_SHOWN:,} more")
    print(f"manifest {layout.run_id} is sound" if found.is_sound else f"{len(found.problems):,} problems")
    return 0 if found.is_sound else 1


def summary(config: ManifestConfig) -> int:
    """Print what a manifest holds."""
    from pipeline.manifest.read import find_run, iter_parts, load_success
    from pipeline.storage import Storage

    storage = Storage(config.storage)
    layout = find_run(storage, config.uri)
    success = load_success(storage, layout)
    errors: Counter[str] = Counter()
    stages: Counter[str] = Counter()
    source_bytes = output_bytes = 0
    first: datetime | None = None
    last: datetime | None = None
    for table in iter_parts(storage, layout, success):
        for row in table.select(
            [
                "error_type",
                "source_bytes",
                "output_bytes",
                "decode_ms",
                "stylize_ms",
                "encode_ms",
                "finished_at",
            ]
        ).to_pylist():
            if row["error_type"]:
                errors[row["error_type"]] += 1
            source_bytes += row["source_bytes"] or 0
            output_bytes += row["output_bytes"] or 0
            stages.update({stage: row[f"{stage}_ms"] or 0 for stage in ("decode", "stylize", "encode")})
            first = min(first or row["finished_at"], row["finished_at"])
            last = max(last or row["finished_at"], row["finished_at"])
    print(f"run {success.run_id}, committed {success.finished_at}")
    for style in success.styles:
        print(f"style {style['name']} version {style['version']}, model {style['model_sha256'][:12]}")
    print(
        f"{success.num_sources:,} sources, {success.num_rows:,} rows in {len(success.parts):,} parts: ",
        end="",
    )
    print(counts_text(success.counts))
    print(f"{source_bytes / 1e6:,.1f} MB read, {output_bytes / 1e6:,.1f} MB written")
    for stage, milliseconds in stages.items():
        print(f"{stage}: {duration(milliseconds / 1000)} in all")
    if first and last and last > first:
        seconds = (last - first).total_seconds()
        print(f"throughput: {(success.num_rows - 1) / seconds:.2f} rows/s between the first and the last finish")
    for error_type, count in errors.most_common():
        print(f"  {count:,} x {error_type}")
    return 0
