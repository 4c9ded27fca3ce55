"""Descriptions of metrics, independent of the library that exports them.

The bulk flow and the training flow each list their meters (``METERS``); a process opens those it needs with
``ray.util.metrics``, and Ray serves them to Prometheus. ``infra/observability`` uses the same names.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

SECONDS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
"""Upper bounds of the buckets of a histogram of durations, in seconds."""


@dataclass(frozen=True, kw_only=True)
class Meter:
    """A Prometheus metric."""

    kind: Literal["Counter", "Gauge", "Histogram"]
    name: str
    """Without Ray's prefix and without the suffixes that Prometheus adds for each kind."""
    help: str
    tags: tuple[str, ...] = ("run",)
    bounds: tuple[float, ...] = ()
    """Upper bounds of the buckets; for histograms only."""

    def open(self, library: Any, **tags: str) -> Any:
        """Return the metric object.

        Args:
            library: ``ray.util.metrics``.
            tags: default tags of all values that this process records.
        """
        more = {"boundaries": list(self.bounds)} if self.bounds else {}
        metric = getattr(library, self.kind)(self.name, description=self.help, tag_keys=self.tags, **more)
        metric.set_default_tags(tags)
        return metric


def start_at_zero(counter: Any, **tags: str) -> None:
    """Export a counter before its first event; otherwise ``rate`` and ``increase`` miss that event.

    Args:
        counter: of ``ray.util.metrics``.
        tags: values of the tags that have no default.
    """
    counter._record(0.0, tags)  # ``inc`` does the same but refuses zero


class TotalCounter:
    """Exports a total that this process keeps, such as its storage retries, as a counter that starts at zero.

    Args:
        counter: of ``ray.util.metrics``.
        total: returns the current total; only what is added from now on is counted.
    """

    def __init__(self, counter: Any, total: Callable[[], int]) -> None:
        self._counter = counter
        self._total = total
        self._counted = total()
        start_at_zero(counter)

    def update(self) -> None:
        """Count what was added to the total since the last call."""
        before, self._counted = self._counted, self._total()
        if self._counted > before:
            self._counter.inc(self._counted - before)
