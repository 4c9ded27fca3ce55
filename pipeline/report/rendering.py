"""Templates to HTML: one environment for all pages."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

import jinja2
import yaml
from markupsafe import Markup

from pipeline.report.wording import count, duration, number, redacted, size, visible


def render(template: str, **values: Any) -> str:
    """Return a page made from one of the templates; everything put into it is escaped."""
    return _environment().get_template(template).render(**values) + "\n"


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pipeline.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=number,
        count=count,
        size=size,
        duration=duration,
        visible=visible,
        redacted=redacted,
        yaml=_as_yaml,
    )
    folder = resources.files("pipeline.report") / "templates"
    # The project's own style sheet and script, never data of a run.
    environment.globals["stylesheet"] = Markup((folder / "page.css").read_text("utf-8"))
    environment.globals["script"] = Markup((folder / "page.js").read_text("utf-8"))
    return environment


def _as_yaml(config: Mapping[str, Any]) -> str:
    text = yaml.safe_dump(_plain(config), sort_keys=False, allow_unicode=True, default_flow_style=False)
    return redacted(text)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {visible(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return visible(value, limit=2000)
