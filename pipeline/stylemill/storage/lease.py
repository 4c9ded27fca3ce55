"""One writer per run: numbered lease objects, of which the highest stands.

Taking a run over means creating the lease with the next number, which exactly one process can do (conditional create).
The number is the fencing token: whoever finds a higher one has lost the run and stops. A holder renews its own object;
an observer calls it dead once it has seen no renewal for a while *by its own clock*, so clocks need not agree.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from stylemill.errors import ObjectNotFound, RunConflict, StorageError
from stylemill.storage.storage import Storage
from stylemill.storage.uri import join

log = logging.getLogger(__name__)

RENEW_PERIOD_S = 5.0
DEAD_AFTER_S = 30.0
"""A holder that did not renew for this long, as seen by the one who waits, is dead."""


@dataclass(frozen=True, kw_only=True)
class Holder:
    """The content of a lease object."""

    host: str
    pid: int
    process_started: str
    """Kernel's start time of the process: a reused pid is another process."""
    nonce: str
    since: str
    """UTC, ISO 8601."""
    beat: int = 0
    """Counts renewals."""
    released: bool = False
    """The holder ended in order, or gave up."""

    def describe(self) -> str:
        """Return who this is, for messages."""
        return f"process {self.pid} on {self.host} since {self.since}"

    @property
    def is_dead_here(self) -> bool:
        """Whether it was a process of this machine that is certainly gone."""
        return self.host == socket.gethostname() and _process_started(self.pid) != self.process_started


class Lease:
    """The right to write one run, as long as no higher token exists.

    Args:
        storage: where the run is.
        prefix_uri: folder of the lease objects.
        token: this lease's number.
    """

    def __init__(self, storage: Storage, prefix_uri: str, token: int) -> None:
        self._storage = storage
        self._prefix_uri = prefix_uri
        self.token = token

    def check(self) -> None:
        """Raise RunConflict if another process has taken the run over."""
        try:
            data = self._storage.read_bytes(_lease_uri(self._prefix_uri, self.token + 1))
        except ObjectNotFound:
            return
        raise RunConflict(f"the run was taken over by {Holder(**json.loads(data)).describe()}; this process stops")


class HeldLease(Lease):
    """A lease that this process holds and renews from a thread of its own; use it in a ``with`` block."""

    def __init__(self, storage: Storage, prefix_uri: str, token: int, holder: Holder) -> None:
        super().__init__(storage, prefix_uri, token)
        self._holder = holder
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)

    def __enter__(self) -> HeldLease:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        try:
            self._write(replace(self._holder, released=True))
        except StorageError as error:  # the next process finds this one dead, and what went wrong here is told
            log.warning("the lease was not given back: %s", error)

    def _renew(self) -> None:
        while not self._stop.wait(RENEW_PERIOD_S):
            self._holder = replace(self._holder, beat=self._holder.beat + 1)
            try:
                self._write(self._holder)
            except StorageError as error:  # the job's own writes will fail too, or the next renewal succeeds
                log.warning("the lease was not renewed: %s", error)

    def _write(self, holder: Holder) -> None:
        self._storage.write_bytes(_lease_uri(self._prefix_uri, self.token), _to_bytes(holder))


def acquire(
    storage: Storage, prefix_uri: str, *, dead_after_s: float = DEAD_AFTER_S, on_wait: Callable[[str], None] = log.info
) -> HeldLease:
    """Take a run, from a dead holder if need be.

    Args:
        storage: where the run is.
        prefix_uri: folder of its lease objects.
        dead_after_s: seconds without a renewal after which a holder counts as dead.
        on_wait: told once why this takes a while.

    Raises:
        RunConflict: a living process holds the run, or another one took it first.
    """
    token = max((int(found.key.removesuffix(".json")) for found in storage.list_objects(prefix_uri)), default=0)
    if token:
        _wait_for_death(storage, _lease_uri(prefix_uri, token), dead_after_s, on_wait)
    holder = Holder(
        host=socket.gethostname(),
        pid=os.getpid(),
        process_started=_process_started(os.getpid()),
        nonce=secrets.token_hex(8),
        since=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    uri = _lease_uri(prefix_uri, token + 1)
    if not storage.create_bytes(uri, _to_bytes(holder)):
        raise RunConflict(f"the run was just taken by {_read(storage, uri).describe()}; wait for it, or stop it first")
    return HeldLease(storage, prefix_uri, token + 1, holder)


def _wait_for_death(storage: Storage, uri: str, dead_after_s: float, on_wait: Callable[[str], None]) -> None:
    """Return once the holder of a lease is gone; raise RunConflict when it shows life."""
    first = _read(storage, uri)
    deadline_s = time.monotonic() + dead_after_s
    told = False
    holder = first
    while not (holder.released or holder.is_dead_here):
        if holder != first:
            raise RunConflict(f"the run is held by {holder.describe()}, which is alive; wait for it, or stop it first")
        if time.monotonic() > deadline_s:
            return
        if not told:
            on_wait(f"the run is held by {holder.describe()}; waiting up to {dead_after_s:.0f} s to see if it is alive")
            told = True
        time.sleep(min(1.0, dead_after_s / 4))
        holder = _read(storage, uri)


def _read(storage: Storage, uri: str) -> Holder:
    return Holder(**json.loads(storage.read_bytes(uri)))


def _to_bytes(holder: Holder) -> bytes:
    return json.dumps(asdict(holder)).encode()


def _lease_uri(prefix_uri: str, token: int) -> str:
    return join(prefix_uri, f"{token:08d}.json")


def _process_started(pid: int) -> str:
    """Return the kernel's start time of a process together with the boot's identity; empty if it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
    return f"{boot}/{stat.rpartition(')')[2].split()[19]}"
