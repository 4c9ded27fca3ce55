"""What every actor of a run must know."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.manifest.layout import RunLayout
from pipeline.storage import Storage
from pipeline.storage.lease import Lease
from pipeline.stylizing.config import StylizeConfig
from pipeline.stylizing.identity import RunIdentity


@dataclass(frozen=True, kw_only=True)
class BulkJob:
    """One invocation of one run, as its actors see it."""

    config: StylizeConfig
    identity: RunIdentity
    layout: RunLayout
    lease_token: int
    """Fencing token of the driver: an actor that finds a higher one stops."""

    def lease(self, storage: Storage) -> Lease:
        """Return the driver's lease, to be checked."""
        return Lease(storage, self.layout.lease_uri, self.lease_token)
