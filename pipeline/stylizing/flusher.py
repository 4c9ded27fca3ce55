"""Collecting finished rows and writing them to ``pending/`` now and then."""

from __future__ import annotations

import time
from typing import Any

from pipeline.manifest.layout import RunLayout
from pipeline.manifest.pending import FLUSH_ROWS, FLUSH_SECONDS, write_pending
from pipeline.storage import Storage
from pipeline.storage.lease import Lease


class Flusher:
    """Writes the rows of one plan shard every 32 images or 10 seconds, as long as the run's lease stands.

    Args:
        storage: where the run is.
        layout: of the run.
        shard: that all rows belong to.
        lease: checked before each write, so that a fenced-off worker leaves no rows.
    """

    def __init__(self, storage: Storage, layout: RunLayout, shard: int, lease: Lease) -> None:
        self._storage = storage
        self._layout = layout
        self._shard = shard
        self._lease = lease
        self._rows: list[dict[str, Any]] = []
        self._num_images = 0
        self._last_s = time.monotonic()

    def add(self, rows: list[dict[str, Any]]) -> None:
        """Take the rows of one finished source."""
        self._rows += rows
        self._num_images += 1
        if self._num_images >= FLUSH_ROWS or time.monotonic() - self._last_s > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what was collected.

        Raises:
            RunConflict: another process has taken the run over.
        """
        if self._rows:
            self._lease.check()
            write_pending(self._storage, self._layout, self._shard, self._rows)
        self._rows, self._num_images, self._last_s = [], 0, time.monotonic()
