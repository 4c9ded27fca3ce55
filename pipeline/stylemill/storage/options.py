"""Settings of object storage. Never a secret: those come from the environment or the machine's role."""

from __future__ import annotations

from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from stylemill.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class StorageOptions:
    """How to reach object storage; credentials come from the usual environment variables or the machine's role.

    Raises:
        ConfigError: the endpoint is not an http(s) URL or contains credentials, or a time is not positive.
    """

    endpoint_url: str | None = None
    """S3 endpoint, for stores other than AWS."""
    region: str | None = None
    """S3 region."""
    profile: str | None = None
    """Named profile of the AWS configuration files."""
    retry_deadline_s: float = 120.0
    """Seconds after which a failing storage operation is not retried any more and the job stops; it can be resumed."""
    timeout_s: float = 30.0
    """Seconds without an answer after which a request counts as failed."""

    def __post_init__(self) -> None:
        url = self.endpoint_url
        if url is not None and not _is_http_url(url):
            raise ConfigError("storage.endpoint_url", url, "is not an http(s) URL", "write https://host[:port]")
        if url is not None and "@" in url.split("/")[2]:
            host = url.split("@")[-1]
            cure = "leave it out and set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment"
            raise ConfigError("storage.endpoint_url", f"***@{host}", "carries a credential", cure)
        for name in ("retry_deadline_s", "timeout_s"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"storage.{name}", getattr(self, name), "is not above zero", "write seconds")


def _is_http_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is not a number, half an IPv6 address
        return False


PREFLIGHT_DEADLINE_S = 20.0


def preflight_options(options: StorageOptions, deadline_s: float = PREFLIGHT_DEADLINE_S) -> StorageOptions:
    """Return options for the checks before a job, which report a store that does not answer after a short time."""
    return replace(options, retry_deadline_s=min(options.retry_deadline_s, deadline_s))
