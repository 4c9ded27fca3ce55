"""What a user may choose about a submission, and about looking after what was submitted."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TypeVar
from urllib.parse import urlsplit

from stylemill.errors import ConfigError, config_errors_for

JOB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
PROGRESS_MARK = "progress: "
"""Begins each line of a job's log that says how far it is."""
ADDRESS_VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")


@dataclass(frozen=True, kw_only=True)
class ClusterAddress:
    """Which cluster.

    Raises:
        ConfigError: an address that is no URL, or carries a credential.
    """

    address: str = ""
    """URL of the cluster's dashboard, such as http://HOST:8265; by default RAY_API_SERVER_ADDRESS or RAY_ADDRESS."""

    def __post_init__(self) -> None:
        if self.address:
            _check_url(self.address)


def _check_url(url: str) -> None:
    parts = urlsplit(url)
    if "@" in parts.netloc:
        shown = f"{parts.scheme}://***@{parts.netloc.rpartition('@')[2]}"
        raise ConfigError("address", shown, "carries a credential", "leave it out and set RAY_AUTH_TOKEN_PATH")
    try:
        is_usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:  # a port that is none
        is_usable = False
    if not is_usable or parts.path.strip("/") or parts.query:
        raise ConfigError("address", url, "is no URL of a Ray dashboard", "write http://HOST:8265 or https://HOST")


AddressT = TypeVar("AddressT", bound=ClusterAddress)


def with_address_from(config: AddressT, environment: dict[str, str]) -> AddressT:
    """Return a config whose address is set, from the environment if need be.

    Raises:
        ConfigError: there is none, or the environment's is no URL.
    """
    if config.address:
        return config
    for variable in ADDRESS_VARIABLES:
        if environment.get(variable):
            with config_errors_for(variable, cure="give --address http://HOST:8265"):
                return replace(config, address=environment[variable])
    raise ConfigError("address", None, "is required", "give --address http://HOST:8265")


@dataclass(frozen=True, kw_only=True)
class SubmitConfig(ClusterAddress):
    """Run a verb as a job on a Ray cluster.

    Raises:
        ConfigError: a value out of range.
    """

    wait: bool = False
    """Wait for the end of the job and leave with its exit code."""

    follow: bool = False
    """Print the job's log as it grows, to its end; includes --wait."""

    dry_run: bool = False
    """Print what the job would do, how long it would take and what it would cost; submit nothing."""

    again: bool = False
    """Submit even if an equal job has finished."""

    id: str | None = None
    """Submission id; by default a hash of the verb and its config, so that submitting twice does not run twice."""

    shared_filesystem: bool = False
    """Every machine of the cluster sees local paths as this one does; without it they are refused."""

    use_image: bool = False
    """Run the code that is installed on the cluster instead of sending this one's."""

    rate: float | None = None
    """For --dry-run: images per second of one actor or training worker; by default as measured by earlier runs."""

    price_per_hour: float | None = None
    """For --dry-run: price of one GPU (with --device cuda) or one CPU for an hour, in any currency."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.id is not None and not JOB_ID.fullmatch(self.id):
            raise ConfigError("id", self.id, "is no usable id", "use letters, digits, '.', '_' and '-', at most 100")
        if self.rate is not None and not 0 < self.rate < float("inf"):
            raise ConfigError("rate", self.rate, "is not above zero", "write images per second")
        if self.price_per_hour is not None and not 0 <= self.price_per_hour < float("inf"):
            raise ConfigError("price_per_hour", self.price_per_hour, "is below zero", "write a price")


@dataclass(frozen=True, kw_only=True)
class JobsConfig(ClusterAddress):
    """Which jobs."""

    all: bool = False
    """Also list jobs that are none of stylemill's."""


@dataclass(frozen=True, kw_only=True)
class JobConfig(ClusterAddress):
    """Which job."""

    id: str = field(default="")
    """Id of the job, as `submit` and `jobs list` print it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not JOB_ID.fullmatch(self.id):
            raise ConfigError("id", self.id, "is no id of a job", "copy one from `stylemill jobs list`")


@dataclass(frozen=True, kw_only=True)
class LogsConfig(JobConfig):
    """Which job, and how much of its log."""

    follow: bool = False
    """Go on until the job ends, and leave with its exit code."""
