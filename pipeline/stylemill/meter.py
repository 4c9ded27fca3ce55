"""One thing that is counted or timed while a run goes on, described apart from what exports it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

SECONDS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
"""Bounds of a histogram's buckets."""


@dataclass(frozen=True, kw_only=True)
class Meter:
    """A metric, as Prometheus will see it."""

    kind: Literal["Counter", "Gauge", "Histogram"]
    name: str
    """Without Ray's prefix and the suffixes that Prometheus knows a kind by."""
    help: str
    tags: tuple[str, ...] = ("run",)
    bounds: tuple[float, ...] = ()
    """Upper bounds of the buckets; for histograms only."""

    @property
    def exported(self) -> tuple[str, ...]:
        """Names under which Ray's endpoint serves it."""
        suffixes = {"Counter": ("_total",), "Gauge": ("",), "Histogram": ("_bucket", "_sum", "_count")}
        return tuple(f"ray_{self.name}{suffix}" for suffix in suffixes[self.kind])

    def open(self, library: Any, **tags: str) -> Any:
        """Return the metric itself.

        Args:
            library: ``ray.util.metrics``.
            tags: those that are the same for all of this process's values.
        """
        more = {"boundaries": list(self.bounds)} if self.bounds else {}
        metric = getattr(library, self.kind)(self.name, description=self.help, tag_keys=self.tags, **more)
        metric.set_default_tags(tags)
        return metric


def start_at_zero(counter: Any, **tags: str) -> None:
    """Make a counter exist before its first event, without which ``rate`` and ``increase`` never see that event.

    Args:
        counter: of ``ray.util.metrics``.
        tags: those that the counter has no default for.
    """
    counter._record(0.0, tags)  # what ``inc`` does, but that refuses zero
