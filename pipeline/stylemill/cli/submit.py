"""``stylemill submit --address URL <verb> ...``: a verb as a job on a Ray cluster.

``submit --dry-run``: what a job would read, how long it would take and what it would cost.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from stylemill.cli.arguments import parse
from stylemill.cli.terminal import LiveLine, duration
from stylemill.errors import ConfigError, StorageError
from stylemill.registry import REGISTRY_VARIABLE
from stylemill.retraining.config import WEBHOOK_VARIABLE
from stylemill.submission.config import PROGRESS_MARK, SubmitConfig, with_address_from
from stylemill.submission.request import JobRequest, choose_attempt, hashed_id, job_id, resolve_locations

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

    from stylemill.stylizing.config import StylizeConfig


@dataclass(frozen=True, kw_only=True)
class Submittable:
    """A verb that can run on a cluster."""

    config_type: str
    """Module and name of its config, imported only when it is needed."""
    locations: tuple[str, ...]
    """Fields of the config that hold locations."""
    resources: tuple[str, ...] = ("storage",)
    """Fields that say how, not what: two submissions that differ in them alone are the same job."""
    is_repeatable: bool = True
    """Whether a finished job may be followed by an equal one that finds new work."""
    positional: str | None = None
    presets: str | None = None
    """Module and name of its presets."""
    driver_cpus: int = 0
    """CPUs that the verb's own process computes with: Ray finds it a machine that has them."""


_TRAINED_FROM = ("style_image", "content", "out", "warm_start", "teacher", "registry", "loss_weights")
_TRAINED_WITH = ("storage", "num_workers", "cpus_per_worker", "micro_batch_size", "content_cache")
_PRESETS = "stylemill.training.config:PRESETS"

SUBMITTABLE = {
    "train": Submittable(
        config_type="stylemill.training.config:TrainConfig",
        locations=_TRAINED_FROM,
        resources=(*_TRAINED_WITH, "registry"),
        is_repeatable=False,
        presets=_PRESETS,
    ),
    "retrain": Submittable(
        config_type="stylemill.retraining.config:RetrainConfig",
        locations=(*_TRAINED_FROM, "holdout"),
        resources=_TRAINED_WITH,
        presets=_PRESETS,
    ),
    "stylize": Submittable(
        config_type="stylemill.stylizing.config:StylizeConfig",
        locations=("model", "registry", "input", "out"),
        resources=(
            "storage",
            "registry",
            "num_actors",
            "threads_per_actor",
            "batch_size",
            "stages",
            "max_failed_fraction",
        ),
    ),
    "evaluate": Submittable(
        config_type="stylemill.evaluation.config:EvaluateConfig",
        locations=("model", "content", "out", "registry", "judge.style_image", "judge.loss_weights"),
        driver_cpus=1,
    ),
    "manifest verify": Submittable(
        config_type="stylemill.cli.manifest:VerifyConfig", locations=("uri",), positional="uri"
    ),
    "manifest summary": Submittable(
        config_type="stylemill.cli.manifest:ManifestConfig", locations=("uri",), positional="uri"
    ),
    "manifest repair": Submittable(
        config_type="stylemill.cli.manifest:ManifestConfig", locations=("uri",), positional="uri"
    ),
    "manifest gc": Submittable(config_type="stylemill.cli.manifest:GcConfig", locations=("uri",), positional="uri"),
}
"""What may follow ``submit``."""

_SWITCHES = {"--wait", "--follow", "--dry-run", "--again", "--shared-filesystem", "--use-image"}
DETACHED = 130


def main(arguments: Sequence[str]) -> int:
    """Submit a verb; return 0 once it is submitted, or with ``--wait`` the job's own exit code."""
    own, verb, rest = split(arguments)
    description = "Run a verb as a job: " + ", ".join(SUBMITTABLE) + "."
    config = parse(SubmitConfig, "submit", description, own, followed_by="<verb> ...")
    if config is None:
        return 0
    if not verb:
        raise ConfigError("verb", None, "is missing", "write stylemill submit --address URL stylize ...")
    request = build_request(verb, rest, config)
    if request is None:
        return 0
    if config.dry_run:
        return print_plan(request, config)
    return submit(request, with_address_from(config, dict(os.environ)))


def split(arguments: Sequence[str]) -> tuple[list[str], str, list[str]]:
    """Return the flags of ``submit`` itself, the verb, and what follows the verb."""
    own: list[str] = []
    words = list(arguments)
    while words and words[0].startswith("-"):
        own.append(words.pop(0))
        takes_value = own[-1] not in _SWITCHES and "=" not in own[-1] and own[-1] not in ("-h", "--help")
        is_truth = bool(words) and words[0].lower() in ("true", "false")
        if words and (is_truth or (takes_value and own[-1] != "--print-config")):
            own.append(words.pop(0))
    for length in (2, 1):
        verb = " ".join(words[:length])
        if verb in SUBMITTABLE:
            return own, verb, words[length:]
    if words and not {"-h", "--help", "--print-config"} & set(own):
        cure = "submit one of " + ", ".join(SUBMITTABLE)
        raise ConfigError("verb", " ".join(words[:2]) if words[0] == "manifest" else words[0], "is no job", cure)
    return own, "", []


def build_request(verb: str, arguments: Sequence[str], submit_config: SubmitConfig) -> JobRequest | None:
    """Return what is to be sent, or None after the verb's help has printed.

    Raises:
        ConfigError: anything wrong with the verb's arguments.
    """
    kind = SUBMITTABLE[verb]
    config_type: type[Any] = _named(kind.config_type)
    presets = _named(kind.presets) if kind.presets else None
    config = parse(config_type, verb, f"As a job: {verb}.", arguments, positional=kind.positional, presets=presets)
    if config is None:
        return None
    if getattr(config, "webhook", None):
        problem = "may hold a secret, which everyone with access to the cluster could read"
        raise ConfigError(
            "webhook", "***", problem, f"set {WEBHOOK_VARIABLE} in the environment of its machines instead"
        )
    if {"model", "warm_start", "teacher"} & set(kind.locations) and config.registry is None:
        # This machine's environment is not sent.
        config = replace(config, registry=os.environ.get(REGISTRY_VARIABLE))
    config = resolve_locations(config, kind.locations, shared_filesystem=submit_config.shared_filesystem)
    base_id, is_repeatable = hashed_id(verb, config, kind.resources), kind.is_repeatable
    if verb == "stylize":
        base_id, is_repeatable = _id_of_run(config, base_id)
    return JobRequest(
        verb=verb,
        config=config,
        base_id=submit_config.id or base_id,
        is_repeatable=is_repeatable,
        driver_cpus=kind.driver_cpus,
    )


def _named(location: str) -> Any:
    module, _, name = location.partition(":")
    return getattr(importlib.import_module(module), name)


def _id_of_run(config: StylizeConfig, hashed: str) -> tuple[str, bool]:
    """Return the job id of a bulk run, and whether a finished job may be followed by an equal one.

    The run's identity holds the digests of its models. Where they cannot be read from here, only the job can tell
    whether an equal run is committed; it then does nothing.
    """
    from stylemill.registry import locate_model
    from stylemill.storage import Storage
    from stylemill.style_model import load_style_header
    from stylemill.stylizing.identity import identify

    storage = Storage(replace(config.storage, retry_deadline_s=min(config.storage.retry_deadline_s, 5.0)))
    try:
        located = [locate_model(storage, uri, config.registry) for uri in config.model]
        headers = [load_style_header(storage, uri) for uri in located]
    except StorageError as error:
        print(f"note: the model cannot be read from here, so only the job itself will check it ({error})")
        return hashed, True
    models = [(header.name, header.version, header.sha256) for header in headers]
    run_id = identify(replace(config, run_id=None), config.input, config.out, models).run_id
    follows = "-incremental" * config.incremental + "-retry-failed" * config.retry_failed
    name = f"{config.run_id[:40]}-{run_id[:8]}" if config.run_id else run_id
    return job_id("stylize", name + follows), bool(follows)


def submit(request: JobRequest, config: SubmitConfig) -> int:
    """Send a request unless it runs or has finished already, and look after the job as far as asked."""
    from stylemill.submission import cluster

    client = cluster.connect(config.address)
    if not config.use_image:
        cluster.check_python_version(client, config.address)
    known = {str(job.submission_id): job for job in cluster.find_jobs(client, config.address)}
    states = {name: cluster.state_of(job) for name, job in known.items()}
    attempt = choose_attempt(request.base_id, states, is_repeatable=request.is_repeatable or config.again)
    if attempt.is_done:
        print(f"job {attempt.id} has done this already; nothing was submitted (--again runs it once more)")
        return cluster.exit_code_of(known[attempt.id]) if config.wait or config.follow else 0
    is_new = not attempt.is_running and cluster.send(
        client, config.address, request, attempt.id, use_image=config.use_image
    )
    earlier = f", after {attempt.earlier}" if attempt.earlier else ""
    print(f"job {attempt.id} {'submitted' + earlier if is_new else 'runs already; nothing was submitted'}", flush=True)
    if not (config.wait or config.follow):
        print(f"watch it: {come_back('logs', attempt.id, config.address)} --follow")
        return 0
    return look_after(client, config.address, attempt.id, follow=config.follow)


def come_back(what: str, job: str, address: str) -> str:
    """Return the command that does something about a job."""
    return f"stylemill jobs {what} {job} --address {address}"


def look_after(client: JobSubmissionClient, address: str, job: str, *, follow: bool) -> int:
    """Wait for the end of a job and return its exit code; an interrupt leaves the job alone."""
    from stylemill.submission import cluster
    from stylemill.submission.cluster import exit_code_of

    shown = _Log() if follow else _Status()
    try:
        if isinstance(shown, _Log):
            ended = cluster.follow_log(client, address, job, shown.show)
        else:
            ended = cluster.wait_for_end(client, address, job, shown.show)
    except KeyboardInterrupt:
        shown.close()
        print(f"\ndetached; job {job} goes on\n  {come_back('logs', job, address)} --follow")
        print(f"  {come_back('stop', job, address)}")
        return DETACHED
    shown.close()
    code = exit_code_of(ended)
    print(f"job {job}: {ending(ended)}")
    if code and not follow:
        for line in last_words(cluster.read_log(client, address, job)):
            print(f"  {line}")
    return code


def ending(job: JobDetails) -> str:
    """Return how a job ended, in words."""
    status = str(job.status).lower()
    if job.driver_exit_code == 3:
        return "done, but too many sources failed (exit code 3)"
    if job.driver_exit_code:
        return f"{status} with exit code {job.driver_exit_code}"
    if status == "failed":
        reason = " ".join((job.message or "no reason given").split())[:300]
        return f"failed ({reason}); the same submit command goes on"
    return f"{status}; the same submit command goes on" if status == "stopped" else status


def last_words(log: str, num_lines: int = 5) -> list[str]:
    """Return the last lines of a log that say something."""
    lines = [line for line in log.splitlines() if line.strip() and not line.startswith(PROGRESS_MARK)]
    return lines[-num_lines:]


class _Log:
    """Prints a job's log; its lines of progress are one live line."""

    def __init__(self) -> None:
        self._line = LiveLine()
        self._rest = ""

    def show(self, text: str) -> None:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            if line.startswith(PROGRESS_MARK):
                self._line.show(line.removeprefix(PROGRESS_MARK))
            else:
                self._line.clear()
                print(line, flush=True)

    def close(self) -> None:
        if self._rest:
            print(self._rest)
        self._line.close()


class _Status:
    """Shows a job's status and progress in one live line."""

    def __init__(self) -> None:
        self._line = LiveLine()

    def show(self, job: JobDetails, progress: str | None) -> None:
        if not job.status.is_terminal():
            self._line.show(f"{str(job.status).lower()}: {progress or 'no progress yet'}")

    def close(self) -> None:
        self._line.close()


def print_plan(request: JobRequest, config: SubmitConfig) -> int:
    """Print the plan of a request; nothing is submitted, and only what is to be read is listed."""
    print(f"plan of job {request.base_id}: {request.verb} -> {request.out} (nothing is submitted)")
    machines = _machines(config)
    if request.verb not in ("train", "stylize"):
        print("no estimate: this verb reads what its manifest lists")
        return 0
    from stylemill.submission import estimate

    line = LiveLine()
    try:
        work = estimate.count_sources(request.config, lambda count: line.show(f"{count:,} sources so far"))
    finally:
        line.close()
    workers = estimate.choose_workers(request.config, machines)
    print(f"sources:  {work.num_sources:,}, {size_text(work.num_bytes)}")
    if request.verb == "stylize":
        print(f"images:   {work.num_images:,} to paint ({len(request.config.model)} style(s))")
        if request.config.incremental or request.config.retry_failed:
            print("          at most: those that earlier runs finished are left out")
    else:
        print(f"images:   {work.num_images:,} through the network ({request.config.steps:,} steps)")
    each = f"{workers.units_each} {workers.unit}{'s' * (workers.units_each > 1)}"
    print(f"workers:  {workers.count:,} of {each} each")
    rate = estimate.Rate(images_per_s=config.rate, source="as stated") if config.rate else None
    rate = rate or estimate.measured_rate(request.config)
    if rate is None:
        print("time:     unknown, since nothing was painted into this output yet; state --rate, the images per second")
        print("          of one actor or training worker (a small run prints them)")
        return 0
    print(f"rate:     {rate.images_per_s:.3g} images/s of each, {rate.source}")
    found = estimate.estimate(work, rate, workers)
    print(f"time:     about {duration(found.wall_s)} once the workers have started")
    cost = ""
    if config.price_per_hour is not None:
        cost = f", at {config.price_per_hour:g} each {found.unit_hours * config.price_per_hour:,.2f}"
    print(f"cost:     {found.unit_hours:,.3g} {workers.unit}-hours{cost}")
    return 0


def _machines(config: SubmitConfig) -> Sequence[Mapping[str, float]]:
    """Return the cluster's machines; none if no cluster was named."""
    try:
        config = with_address_from(config, dict(os.environ))
    except ConfigError:
        print("cluster:  none named with --address; one worker is assumed where the config does not say more")
        return []
    from stylemill.machines import total_of
    from stylemill.submission import cluster

    client = cluster.connect(config.address)
    machines = cluster.nodes_of(client, config.address)
    cpus, gpus = (int(total_of(machines, name)) for name in ("CPU", "GPU"))
    count = f"{len(machines):,} machine{'s' * (len(machines) != 1)}"
    print(f"cluster:  {config.address}: {count}, {cpus:,} CPUs, {gpus:,} GPUs")
    return machines


def size_text(num_bytes: int) -> str:
    """Return a size for people: ``1.2 TB``."""
    value, units = float(num_bytes), ["bytes", "kB", "MB", "GB", "TB", "PB"]
    while value >= 1000 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:,.0f} {units[0]}" if units[0] == "bytes" else f"{value:,.1f} {units[0]}"
