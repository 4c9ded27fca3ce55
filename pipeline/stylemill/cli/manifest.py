"""``stylemill manifest verify|summary|repair|gc URI``: check, summarise and repair committed runs, and clean up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from stylemill.cli.arguments import Subcommand, run_subcommand
from stylemill.cli.output import print_problem, result
from stylemill.cli.terminal import LiveLine, Steps, by_status, counts_text, duration
from stylemill.errors import ConfigError
from stylemill.storage import StorageOptions

if TYPE_CHECKING:
    from stylemill.auditing.verify import Verification

MAX_PROBLEMS_SHOWN = 20
MAX_PROBLEMS_IN_JSON = 1000
LEFTOVERS_S = 3600.0
"""Age from which half-written files are removed: the processes that wrote them have ended."""


@dataclass(frozen=True, kw_only=True)
class ManifestConfig:
    """The manifest to use."""

    uri: str
    """OUT, OUT/manifests/RUN_ID or OUT/runs/RUN_ID of a committed run."""

    storage: StorageOptions = field(default_factory=StorageOptions)

    def __post_init__(self) -> None:
        if not self.uri:
            raise ConfigError("uri", self.uri, "is empty", "give OUT or OUT/manifests/RUN_ID")


@dataclass(frozen=True, kw_only=True)
class VerifyConfig(ManifestConfig):
    """Settings of ``manifest verify``."""

    sample: float = 1.0
    """Fraction of the objects whose content is read, from 0 to 1; rows and parts are always checked."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.sample <= 1:
            raise ConfigError("sample", self.sample, "is out of range", "write a number from 0 to 1")


@dataclass(frozen=True, kw_only=True)
class GcConfig(ManifestConfig):
    """Settings of ``manifest gc``."""

    delete: bool = False
    """Delete the objects instead of listing them."""


def main(arguments: Sequence[str]) -> int:
    """Run the verb; ``verify`` returns 1 if anything differs from the manifest."""
    return run_subcommand("manifest", SUBCOMMANDS, arguments)


def verify(config: VerifyConfig) -> int:
    """Check a manifest and print what is wrong."""
    found = _verify(config, config.sample)
    return 0 if found.is_sound else 1


def _verify(config: ManifestConfig, sample: float = 1.0) -> Verification:
    from stylemill.manifest.read import find_run, load_success
    from stylemill.storage import Storage

    storage = Storage(config.storage)
    layout = find_run(storage, config.uri)  # fails before Ray is imported if the location is wrong
    from stylemill.auditing import verify as auditing
    from stylemill.cli.session import ray_session

    is_small = len(load_success(storage, layout).parts) <= auditing.MAX_PARTS_WITHOUT_RAY
    line = LiveLine()

    def show(done: int, total: int) -> None:
        line.show(f"{done:,}/{total:,} parts checked", Steps(done=done, total=total, unit="parts checked"))

    with nullcontext() if is_small else ray_session():
        found = auditing.verify(
            config.storage,
            layout,
            sample=sample,
            on_part=show,
        )
    line.close()
    result(
        run_id=layout.run_id,
        is_sound=found.is_sound,
        counts={
            "rows": found.num_rows,
            "objects": found.num_objects,
            "bytes": found.num_bytes,
            "superseded": found.num_superseded,
            "unfinished": found.num_unfinished,
            "problems": len(found.problems),
        },
        problems=[asdict(problem) for problem in found.problems[:MAX_PROBLEMS_IN_JSON]],
    )
    print(f"{found.num_rows:,} rows, {found.num_objects:,} objects, {found.num_bytes / 1e6:,.1f} MB checked")
    if found.num_superseded:
        print(f"{found.num_superseded:,} objects are missing or damaged, but later runs replaced their rows")
    if found.num_unfinished:
        print(f"{found.num_unfinished:,} objects belong to no committed run; some runs of this output are unfinished")
    for problem in found.problems[:MAX_PROBLEMS_SHOWN]:
        about = f" (key {problem.key!r}, style {problem.style!r})" if problem.key else ""
        print_problem(f"  {problem.kind}: {problem.uri!r}{about}: {problem.detail}")
    if len(found.problems) > MAX_PROBLEMS_SHOWN:
        print_problem(f"  ... and {len(found.problems) - MAX_PROBLEMS_SHOWN:,} more")
    print(f"manifest {layout.run_id} is sound" if found.is_sound else f"{len(found.problems):,} problems")
    return found


def repair(config: ManifestConfig) -> int:
    """Verify a manifest and repaint what is missing or damaged."""
    found = _verify(config)
    from stylemill.auditing.repair import prepare_repair
    from stylemill.cli.session import ray_session
    from stylemill.cli.stylize import paint, print_summary, write_report

    if not found.broken_keys:
        print("nothing to repair")
        return 0 if found.is_sound else 1
    prepared = prepare_repair(config.storage, found)
    with ray_session():
        repaired = paint(prepared.config, prepared)
    print_summary(repaired)
    write_report(prepared.config, repaired)
    return 0 if not repaired.success.counts.get("failed") else 3


def gc(config: GcConfig) -> int:
    """List or delete the objects that no committed run owns."""
    from stylemill.auditing.ownership import delete_garbage, find_garbage, finish_or_delete
    from stylemill.storage import ObjectStat, Storage, resolve

    storage, out = Storage(config.storage), resolve(config.uri)
    done, num_bytes, num_objects = "deleted" if config.delete else "unowned", 0, 0

    def report(found: ObjectStat) -> None:
        nonlocal num_bytes, num_objects
        num_bytes, num_objects = num_bytes + found.size_bytes, num_objects + 1
        print(f"{done} {found.uri} ({found.size_bytes:,} bytes)")

    if config.delete:
        garbage = delete_garbage(storage, out, report)
    else:
        garbage = find_garbage(storage, out)
        for found in garbage.objects:
            report(found)
    runs = ", ".join(garbage.unfinished_runs)
    if runs and config.delete:
        problem = f"the runs {runs} are not committed and own some of the objects"
        raise ConfigError("delete", True, problem, finish_or_delete(out))
    if config.delete:
        storage.remove_leftovers(out, older_than_s=LEFTOVERS_S)
    counts = {"objects": num_objects, "bytes": num_bytes}
    result(counts=counts, is_deleted=config.delete, unfinished_runs=list(garbage.unfinished_runs))
    print(f"{num_objects:,} objects, {num_bytes / 1e6:,.1f} MB {done}")
    if runs:
        print(f"runs that are not committed and may own some of them: {runs}")
    return 0


def summary(config: ManifestConfig) -> int:
    """Print counts, times and errors of a manifest."""
    from stylemill.manifest.read import find_run, iter_parts, load_success
    from stylemill.storage import Storage

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
    result(
        run_id=success.run_id,
        finished_at=success.finished_at,
        styles=success.styles,
        counts=by_status(success.counts),
        num_sources=success.num_sources,
        num_rows=success.num_rows,
        source_bytes=source_bytes,
        output_bytes=output_bytes,
        stages_s={stage: round(milliseconds / 1000, 3) for stage, milliseconds in stages.items()},
        errors=dict(errors),
        paths={"manifest": layout.manifest_uri},
    )
    print(f"run {success.run_id}, committed {success.finished_at}")
    for style in success.styles:
        print(f"style {style['name']} version {style['version']}, model {style['model_sha256'][:12]}")
    num_parts = len(success.parts)
    print(
        f"{success.num_sources:,} source{'s' * (success.num_sources != 1)}, "
        f"{success.num_rows:,} row{'s' * (success.num_rows != 1)} in {num_parts:,} part{'s' * (num_parts != 1)}: "
        f"{counts_text(success.counts)}"
    )
    print(f"{source_bytes / 1e6:,.1f} MB read, {output_bytes / 1e6:,.1f} MB written")
    for stage, milliseconds in stages.items():
        print(f"{stage}: {duration(milliseconds / 1000)} in total")
    if first and last and last > first:
        seconds = (last - first).total_seconds()
        print(f"throughput: {(success.num_rows - 1) / seconds:.2f} rows/s from the first to the last finished row")
    for error_type, count in errors.most_common():
        print(f"  {count:,} x {error_type}")
    return 0


SUBCOMMANDS: dict[str, Subcommand[Any]] = {
    "verify": Subcommand(
        does="check rows against the plan, objects against their SHA-256, and look for unknown objects",
        config=VerifyConfig,
        run=verify,
        positional="uri",
    ),
    "summary": Subcommand(
        does="print counts, errors and throughput", config=ManifestConfig, run=summary, positional="uri"
    ),
    "repair": Subcommand(
        does="repaint, in a new run, what verify finds missing or damaged",
        config=ManifestConfig,
        run=repair,
        positional="uri",
    ),
    "gc": Subcommand(
        does="list objects that no committed run owns; --delete deletes them",
        config=GcConfig,
        run=gc,
        positional="uri",
    ),
}
