"""``stylemill submit --address URL <verb> ...``: run a verb as a job on a Ray cluster.

``SUBMITTABLE`` lists the verbs. ``build_request`` parses the verb's own arguments on this machine, so that mistakes are
found before anything is sent, and ``submit`` sends the request unless an equal job runs or has finished. With
``--dry-run``, ``print_plan`` prints what the job would read, how long it would take and what it would cost.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from stylemill.cli.arguments import parse, unknown_command, wrong_use
from stylemill.cli.jobs import jobs_command, watch
from stylemill.cli.terminal import LiveLine, duration, size_text
from stylemill.errors import ConfigError, StorageError
from stylemill.registry import REGISTRY_VARIABLE
from stylemill.retraining.config import WEBHOOK_VARIABLE
from stylemill.submission.config import SubmitConfig, with_address_from
from stylemill.submission.request import JobRequest, choose_attempt, hashed_id, job_id, resolve_locations

if TYPE_CHECKING:
    from stylemill.stylizing.config import StylizeConfig


@dataclass(frozen=True, kw_only=True)
class Submittable:
    """A verb that can run on a cluster."""

    config_type: str
    """Module and name of its config, imported when it is needed."""
    locations: tuple[str, ...]
    """Fields of the config that hold locations."""
    resources: tuple[str, ...] = ("storage",)
    """Fields that do not change the result: two submissions that differ only in them are the same job."""
    is_repeatable: bool = True
    """Whether an equal job may find new work after one has finished."""
    positional: str | None = None
    """Field of the config that may be given without its flag."""
    presets: str | None = None
    """Module and name of its presets."""
    driver_cpus: int = 0
    """CPUs that the verb's own process needs: Ray runs it on a machine that has them."""


_TRAINED_FROM = (
    "style_image",
    "content",
    "out",
    "start",
    "add_to",
    "teacher",
    "registry",
    "loss_weights",
)
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
"""The verbs that may follow ``submit``."""

_SWITCHES = {"--wait", "--follow", "--dry-run", "--again", "--shared-filesystem", "--use-image"}
"""Flags of ``submit`` that take no value."""
MODEL_DEADLINE_S = 5.0
"""Seconds after which a model that cannot be read from this machine is left to the job."""


def main(arguments: Sequence[str]) -> int:
    """Submit a verb; return 0 once it is submitted, or with ``--wait`` the job's own exit code."""
    own, verb, rest = split_arguments(arguments)
    description = "Run a command as a job: " + ", ".join(SUBMITTABLE) + "."
    config = parse(SubmitConfig, "submit", description, own, followed_by="<command> ...")
    if config is None:
        return 0
    if not verb:
        raise wrong_use(f"submit needs a command: {', '.join(SUBMITTABLE)}")
    request = build_request(verb, rest, config)
    if request is None:
        return 0
    if config.dry_run:
        return print_plan(request, config)
    return submit(request, with_address_from(config, dict(os.environ)))


def split_arguments(arguments: Sequence[str]) -> tuple[list[str], str, list[str]]:
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
        given = " ".join(words[:2]) if words[0] == "manifest" else words[0]
        raise unknown_command(given, SUBMITTABLE, after="submit")
    return own, "", []


def build_request(verb: str, arguments: Sequence[str], submit_config: SubmitConfig) -> JobRequest | None:
    """Return the request to send, or None after the verb's ``--help`` or ``--print-config`` has printed.

    Raises:
        ConfigError: anything wrong with the verb's arguments.
    """
    kind = SUBMITTABLE[verb]
    config_type: type[Any] = named(kind.config_type)
    presets = named(kind.presets) if kind.presets else None
    config = parse(config_type, verb, f"Run `{verb}` as a job.", arguments, positional=kind.positional, presets=presets)
    if config is None:
        return None
    if getattr(config, "webhook", None):
        problem = "may hold a secret, which everyone with access to the cluster could read"
        raise ConfigError(
            "webhook", "***", problem, f"set {WEBHOOK_VARIABLE} in the environment of its machines instead"
        )
    if {"model", "start", "teacher"} & set(kind.locations) and config.registry is None:
        # The environment of this machine is not sent.
        config = replace(config, registry=os.environ.get(REGISTRY_VARIABLE))
    config = resolve_locations(config, kind.locations, shared_filesystem=submit_config.shared_filesystem)
    base_id, is_repeatable = hashed_id(verb, config, kind.resources), kind.is_repeatable
    if verb == "stylize":
        base_id, is_repeatable = _bulk_job_id(config, base_id)
    return JobRequest(
        verb=verb,
        config=config,
        base_id=submit_config.id or base_id,
        is_repeatable=is_repeatable,
        driver_cpus=kind.driver_cpus,
    )


def named(location: str) -> Any:
    """Return what ``module:name`` refers to."""
    module, _, name = location.partition(":")
    return getattr(importlib.import_module(module), name)


def _bulk_job_id(config: StylizeConfig, hashed: str) -> tuple[str, bool]:
    """Return the job id of a bulk run, and whether an equal job may run after one has finished.

    The id contains the digests of the run's models. If they cannot be read from this machine, the id is ``hashed``, and
    only the job itself can find out whether an equal run is committed; it then does nothing.
    """
    from stylemill.storage import Storage
    from stylemill.storage.options import preflight_options
    from stylemill.style_choice import choose_styles
    from stylemill.stylizing.identity import identify

    if config.look == "library":
        return hashed, True  # its models are made by the job
    storage = Storage(preflight_options(config.storage, MODEL_DEADLINE_S))
    try:
        styles = choose_styles(storage, config.model, config.registry, config.style, may_be_unreadable=True)
        models = [style.identity() for style in styles]
    except StorageError as error:
        print(f"note: the model cannot be read from this machine; only the job itself will check it ({error})")
        return hashed, True
    run_id = identify(replace(config, run_id=None), config.input, config.out, models).run_id
    follows = "-incremental" * config.incremental + "-retry-failed" * config.retry_failed
    name = f"{config.run_id[:40]}-{run_id[:8]}" if config.run_id else run_id
    return job_id("stylize", name + follows), bool(follows)


def submit(request: JobRequest, config: SubmitConfig) -> int:
    """Send a request unless an equal job runs or has finished; return 0, or the job's exit code if it is waited for."""
    from stylemill.submission import cluster

    client = cluster.connect(config.address)
    if not config.use_image:
        cluster.check_python_version(client, config.address)
    known = {str(job.submission_id): job for job in cluster.find_jobs(client, config.address)}
    states = {name: cluster.job_state(job) for name, job in known.items()}
    attempt = choose_attempt(request.base_id, states, is_repeatable=request.is_repeatable or config.again)
    if attempt.is_done:
        print(f"job {attempt.id} has already finished; nothing was submitted (--again runs it once more)")
        return cluster.job_exit_code(known[attempt.id]) if config.wait or config.follow else 0
    is_new = not attempt.is_running and cluster.submit_request(
        client, config.address, request, attempt.id, use_image=config.use_image
    )
    earlier = f", after {attempt.earlier}" if attempt.earlier else ""
    print(
        f"job {attempt.id} {'submitted' + earlier if is_new else 'is already running; nothing was submitted'}",
        flush=True,
    )
    if not (config.wait or config.follow):
        print(f"watch it: {jobs_command('logs', attempt.id, config.address)} --follow")
        return 0
    return watch(client, config.address, attempt.id, follow=config.follow)


def print_plan(request: JobRequest, config: SubmitConfig) -> int:
    """Print the plan of a request; nothing is submitted, and storage is only listed."""
    print(f"plan of job {request.base_id}: {request.verb} -> {request.out} (nothing is submitted)")
    machines = _machines(config)
    if request.verb not in ("train", "stylize"):
        print("no estimate: only train and stylize have one")
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
        print(f"images:   {work.num_images:,} to paint ({work.num_styles} style(s))")
        if request.config.incremental or request.config.retry_failed:
            print("          at most: images that earlier runs finished are left out")
    else:
        print(f"images:   {work.num_images:,} through the network ({request.config.steps:,} steps)")
    each = f"{workers.units_each} {workers.unit}{'s' * (workers.units_each > 1)}"
    print(f"workers:  {workers.count:,} of {each} each")
    rate = estimate.Rate(images_per_s=config.rate, source="as given") if config.rate else None
    rate = rate or estimate.measured_rate(request.config)
    if rate is None:
        print("time:     unknown, because nothing was painted into this output yet; give --rate, the images per second")
        print("          of one actor or training worker (a small run prints it)")
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
    """Return the resources of the cluster's machines; an empty list if no cluster was named."""
    try:
        config = with_address_from(config, dict(os.environ))
    except ConfigError:
        print("cluster:  none given with --address; one worker is assumed unless the config asks for more")
        return []
    from stylemill.machines import total_of
    from stylemill.submission import cluster

    client = cluster.connect(config.address)
    machines = cluster.node_resources(client, config.address)
    cpus, gpus = (int(total_of(machines, name)) for name in ("CPU", "GPU"))
    count = f"{len(machines):,} machine{'s' * (len(machines) != 1)}"
    print(f"cluster:  {config.address}: {count}, {cpus:,} CPUs, {gpus:,} GPUs")
    return machines
