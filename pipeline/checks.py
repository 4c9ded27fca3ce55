"""What config dataclasses check about their fields; each check names field, value and cure."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.errors import ConfigError


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
