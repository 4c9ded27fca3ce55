"""What config dataclasses check about their fields; each check names field, value and cure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from stylemill.errors import ConfigError, without_credentials

_LOGIN = re.compile(r"(?P<scheme>\w[\w+.-]*)://(?P<login>[^/@\s]*)@")
_SIGNED = re.compile(
    r"https?://[^?\s]*\?([^\s]*&)?[^=&]*(sig|signature|token|secret|credential|password)[^=&]*=", re.IGNORECASE
)


def check_at_least(field: str, value: int, low: int) -> None:
    """Raise ConfigError if a whole number is below ``low``."""
    if value < low:
        raise ConfigError(field, value, f"is below {low}", f"write a whole number from {low}")


def check_within(field: str, value: float, low: float, high: float) -> None:
    """Raise ConfigError if a number is not between ``low`` and ``high``, both included."""
    if not low <= value <= high:
        raise ConfigError(field, value, "is out of range", f"write a number from {low:g} to {high:g}")


def check_one_of(field: str, value: str, choices: Sequence[str]) -> None:
    """Raise ConfigError if a word is none of the choices."""
    if value not in choices:
        raise ConfigError(field, value, "is not a choice", "use one of " + ", ".join(choices))


def check_no_credential(field: str, value: str) -> None:
    """Raise ConfigError if a location carries a credential (a login, or a signed URL's query), without showing it."""
    login = _LOGIN.match(value)
    # abfs://container@account names no login.
    has_login = login is not None and (login["scheme"].lower() not in ("abfs", "abfss") or ":" in login["login"])
    if has_login or _SIGNED.match(value):
        shown = without_credentials(value.partition("?")[0])
        cure = "leave it out and set the credentials in the environment, or give the machine a role"
        raise ConfigError(field, shown, "carries a credential", cure)
