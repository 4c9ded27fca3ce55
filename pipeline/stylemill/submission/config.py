"""Settings of submissions, and of the commands that watch submitted jobs."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TypeVar
from urllib.parse import urlsplit

from stylemill.errors import ConfigError, config_errors_for

_JOB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
PROGRESS_MARK = "progress: "
"""Prefix of the progress lines in a job's log."""
ADDRESS_VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")


@dataclass(frozen=True, kw_only=True)
class ClusterAddress:
    """The cluster to use.

    Raises:
        ConfigError: the address is not the URL of a dashboard, or carries a credential.
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
    except ValueError:  # the port is not a number
        is_usable = False
    if not is_usable or parts.path.strip("/") or parts.query:
        raise ConfigError("address", url, "is not the URL of a Ray dashboard", "write http://HOST:8265 or https://HOST")


AddressT = TypeVar("AddressT", bound=ClusterAddress)


def with_address_from(config: AddressT, environment: dict[str, str]) -> AddressT:
    """Return the config with its address set, from the environment if it has none.

    Raises:
        ConfigError: there is no address, or the one in the environment is not the URL of a dashboard.
    """
    if config.address:
        return config
    for variable in ADDRESS_VARIABLES:
        if environment.get(variable):
            with config_errors_for(variable, cure="give --address http://HOST:8265"):
                return replace(config, address=environment[variable])
    raise ConfigError("address", None, "is required", f"give the URL of a Ray dashboard, or set {ADDRESS_VARIABLES[0]}")


@dataclass(frozen=True, kw_only=True)
class SubmitConfig(ClusterAddress):
    """Run a verb as a job on a Ray cluster.

    Raises:
        ConfigError: a value is out of range.
    """

    wait: bool = False
    """Wait until the job ends and exit with its exit code."""

    follow: bool = False
    """Print the job's log as it grows until the job ends; implies --wait."""

    dry_run: bool = False
    """Print what the job would do, how long it would take and what it would cost; submit nothing."""

    again: bool = False
    """Submit even if an equal job has finished."""

    id: str | None = None
    """Submission id; by default a hash of the command and its config, so that submitting twice does not run twice."""

    shared_filesystem: bool = False
    """Local paths are the same on every machine of the cluster; without this flag they are refused."""

    use_image: bool = False
    """Run the stylemill that is installed on the cluster instead of sending the local one."""

    rate: float | None = None
    """For --dry-run: images per second of one actor or training worker; by default measured from earlier runs."""

    price_per_hour: float | None = None
    """For --dry-run: price of one GPU (with --device cuda) or one CPU for an hour, in any currency."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.id is not None and not _JOB_ID.fullmatch(self.id):
            raise ConfigError("id", self.id, "is not a valid id", "use letters, digits, '.', '_' and '-', at most 100")
        if self.rate is not None and not 0 < self.rate < float("inf"):
            raise ConfigError("rate", self.rate, "is not above zero", "write images per second")
        if self.price_per_hour is not None and not 0 <= self.price_per_hour < float("inf"):
            raise ConfigError("price_per_hour", self.price_per_hour, "is below zero", "write a price")


@dataclass(frozen=True, kw_only=True)
class JobsConfig(ClusterAddress):
    """Settings of ``jobs list``."""

    all: bool = False
    """Also list jobs that were not submitted by stylemill."""


@dataclass(frozen=True, kw_only=True)
class JobConfig(ClusterAddress):
    """Settings of ``jobs status`` and ``jobs stop``."""

    id: str = ""
    """Id of the job, as printed by `submit` and `jobs list`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        cure = "copy the id from `stylemill jobs list`"
        if not self.id:
            raise ConfigError("id", None, "is required", cure)
        if not _JOB_ID.fullmatch(self.id):
            raise ConfigError("id", self.id, "is not the id of a job", cure)


@dataclass(frozen=True, kw_only=True)
class LogsConfig(JobConfig):
    """Settings of ``jobs logs``."""

    follow: bool = False
    """Continue until the job ends, and exit with its exit code."""
