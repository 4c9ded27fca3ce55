"""Renders the templates, and formats numbers, durations and names for people.

All pages share one Jinja environment, which escapes every value. ``visible`` and ``redacted`` make names and locations
safe to show.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any
from urllib.parse import quote

import jinja2
import yaml
from markupsafe import Markup, escape

from stylemill.errors import without_credentials
from stylemill.storage.uri import shown

_INVISIBLE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Unicode categories whose characters cannot be seen."""
_BETWEEN_BREAKS = re.compile(r"[^/_.:,;=?&@+-]*[/_.:,;=?&@+-]+|[^/_.:,;=?&@+-]+")
"""Parts of a long word between which a line may end."""
_URL_CHARACTERS = "%/:?#[]@!$&'()*+,;=~"
"""What stays as it is in the target of a link."""
_SHORT_WORD = 12
"""Words of up to this number of characters are not broken."""
_SHORT_END = 4
"""Parts of up to this number of characters do not stand alone on the last line: ``jpeg``."""
_LONG_PART = re.compile(r"[!-~]{25,}")
"""A part without a separator that is wider than a column: a digest."""


def number(value: float | None, digits: int = 3) -> str:
    """Return a number with significant digits and thousands separators; a dash if there is no finite number.

    ``0.001234 -> 0.00123``, ``12345.6 -> 12,346``.
    """
    if value is None or not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    exponent = math.floor(math.log10(abs(value)))
    if exponent < -5:
        return f"{value:.{digits - 1}e}"
    return f"{value:,.{max(0, digits - 1 - exponent)}f}"


def count(value: int) -> str:
    """Return a whole number with thousands separators."""
    return f"{value:,}"


def size(num_bytes: float | None) -> str:
    """Return a number of bytes in the decimal unit that leaves one to three digits before the point: ``5.0 GB``."""
    if num_bytes is None:
        return "–"
    value = float(num_bytes)
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if abs(value) < 1000.0 or unit == "TB":
            break
        value /= 1000.0
    digits = 0 if unit == "bytes" or value >= 100 else 1
    return f"{value:,.{digits}f}\N{NO-BREAK SPACE}{unit}"


def duration(seconds: float | None) -> str:
    """Return a duration for people: ``0.4 s``, ``48 s``, ``3 min 07 s``, ``2 h 05 min``."""
    if seconds is None or not math.isfinite(seconds):
        return "–"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def visible(text: object, limit: int = 240) -> str:
    r"""Return text on one line with every character visible, shortened in the middle to ``limit`` characters.

    Control, bidirectional, zero-width and lone surrogate characters become escapes such as ``\u202e``, so that a name
    can neither hide its suffix nor reverse the text around it. HTML is escaped by the template, not here.
    """
    text = "".join(
        f"\\u{ord(character):04x}" if unicodedata.category(character) in _INVISIBLE else character
        for character in str(text)
    )
    if len(text) <= limit:
        return text
    head = limit * 2 // 3
    return f"{text[:head]} … {text[-(limit - head - 3) :]}"


def breakable(text: object) -> Markup:
    """Return text as HTML in which lines may end within long names, locations and digests, but not within words.

    A line may end behind each separator, and every 16 characters of a part without one.
    """
    pieces = (_with_breaks(word) for word in re.split(r"(\s+)", str(text)))
    return Markup("").join(pieces)


def _with_breaks(word: str) -> Markup:
    if len(word) <= _SHORT_WORD:
        return escape(word)
    parts: list[str] = []
    for part in _BETWEEN_BREAKS.findall(word):
        is_long = _LONG_PART.fullmatch(part)
        parts += [part[start : start + 16] for start in range(0, len(part), 16)] if is_long else [part]
    if len(parts) > 1 and len(parts[-1]) <= _SHORT_END:
        parts[-2:] = ["".join(parts[-2:])]
    return Markup("<wbr>").join(parts)


def location(uri: object) -> Markup:
    """Return a location as HTML: a link where a browser can open it (a web address, a local file), else text.

    Logins and queries are left out, because they may hold credentials; without them a web address is not a link.
    """
    text = shown(str(uri))
    words = breakable(visible(redacted(text), limit=400))
    if text.startswith(("http://", "https://")) and text == uri:
        target = quote(text, safe=_URL_CHARACTERS, errors="replace")
    elif text.startswith("/"):
        target = "file://" + quote(text, errors="surrogateescape")
    else:
        return words
    return Markup('<a href="{}" rel="noreferrer">{}</a>').format(target, words)


def redacted(text: object) -> str:
    """Return text without the credentials of ``scheme://user:password@host``."""
    return without_credentials(str(text))


def render(template: str, **values: Any) -> str:
    """Return a page made from a template; every value is escaped."""
    return _environment().get_template(template).render(**values) + "\n"


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("stylemill.report", "templates"),
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
        breakable=breakable,
        location=location,
        yaml=_as_yaml,
    )
    folder = resources.files("stylemill.report") / "templates"
    # Markup is not escaped: these are the project's own style sheet and script, never data of a run.
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
