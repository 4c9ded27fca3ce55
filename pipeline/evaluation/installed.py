"""Whether the packages of the extra ``evaluation`` are there."""

from __future__ import annotations

import importlib.util

from pipeline.errors import ConfigError


def check_installed() -> None:
    """Raise ConfigError unless the packages of the extra ``evaluation`` are there; imports none of them."""
    for package in ("skimage", "scipy", "statsmodels"):
        if importlib.util.find_spec(package) is None:
            cure = "pip install 'stylemill[evaluation]'"
            raise ConfigError("evaluation", package, "is a package that this environment lacks", cure)
