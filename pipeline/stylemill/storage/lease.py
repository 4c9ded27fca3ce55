"""One writer per run: numbered lease objects, of which the highest number is valid.

A process takes over a run by creating the lease with the next number; the conditional create lets exactly one process
succeed. The number is the fencing token: a process that finds a higher number has lost the run and stops. The holder
renews its lease object; another process considers it dead after it has seen no renewal for ``DEAD_AFTER_S`` *by its own
clock*, so the clocks of machines need not agree.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from stylemill.errors import ObjectNotFound, RunConflict, StorageError
from stylemill.storage.json_records import record_from_json, record_to_json
from stylemill.storage.storage import Storage
from stylemill.storage.uri import join

log = logging.getLogger(__name__)

RENEW_PERIOD_S = 5.0
DEAD_AFTER_S = 30.0
"""A holder counts as dead after this time without a renewal, measured by the process that waits."""


@dataclass(frozen=True, kw_only=True)
class Holder:
    """The content of a lease object."""

    host: str
    pid: int
    process_started: str
    """Start time of the process according to the kernel; distinguishes processes that reuse a pid."""
    nonce: str
    since: str
    """UTC, ISO 8601."""
    machine: str = ""
    """Boot id and PID namespace of the process; empty where the system has none. Containers may share a host name, and
    machines too."""
    beat: int = 0
    """Number of renewals."""
    released: bool = False
    """Whether the holder has ended normally or with an error; a killed one stays False."""

    def describe(self) -> str:
        """Return a description for messages."""
        return f"process {self.pid} on {self.host} since {self.since}"

    @property
    def is_dead_here(self) -> bool:
        """Whether the holder was a process of this machine, visible from this one, that has ended."""
        is_visible = self.machine != "" and (self.host, self.machine) == (socket.gethostname(), _machine())
        return is_visible and _has_ended(self.pid, self.process_started)


class Lease:
    """The right to write one run, as long as no higher token exists.

    Args:
        storage: gives access to the run.
        prefix_uri: folder of the lease objects.
        token: number of this lease.
    """

    def __init__(self, storage: Storage, prefix_uri: str, token: int) -> None:
        self._storage = storage
        self._prefix_uri = prefix_uri
        self.token = token

    def check(self) -> None:
        """Raise RunConflict if another process has taken the run over."""
        try:
            holder = _read(self._storage, _lease_uri(self._prefix_uri, self.token + 1))
        except ObjectNotFound:
            return
        raise RunConflict(f"the run was taken over by {holder.describe()}; this process stops")


class HeldLease(Lease):
    """A lease that this process holds and renews from a background thread; use it in a ``with`` block."""

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
        except StorageError as error:  # the next process then waits DEAD_AFTER_S
            log.warning("the lease could not be released: %s", error)

    def _renew(self) -> None:
        while not self._stop.wait(RENEW_PERIOD_S):
            self._holder = replace(self._holder, beat=self._holder.beat + 1)
            try:
                self._write(self._holder)
            except StorageError as error:  # if storage stays down, the job's own writes fail too
                log.warning("the lease could not be renewed: %s", error)

    def _write(self, holder: Holder) -> None:
        self._storage.write_bytes(_lease_uri(self._prefix_uri, self.token), _to_json(holder))


def acquire(
    storage: Storage,
    prefix_uri: str,
    *,
    dead_after_s: float = DEAD_AFTER_S,
    on_wait: Callable[[str], None] = log.info,
    what: str = "the run",
) -> HeldLease:
    """Take a run; if its holder is dead, take it over.

    Args:
        storage: gives access to the run.
        prefix_uri: folder of its lease objects.
        dead_after_s: seconds without a renewal after which the holder counts as dead.
        on_wait: called once with a message if this call has to wait.
        what: the thing that is taken, for messages.

    Raises:
        RunConflict: a living process holds the run, or another process took it first.
    """
    token = _newest_token(storage, prefix_uri)
    if token:
        _wait_for_death(storage, _lease_uri(prefix_uri, token), dead_after_s, on_wait, what)
    holder = Holder(
        host=socket.gethostname(),
        pid=os.getpid(),
        process_started=_process_started(os.getpid()),
        nonce=secrets.token_hex(8),
        since=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=_machine(),
    )
    uri = _lease_uri(prefix_uri, token + 1)
    if not storage.create_bytes(uri, _to_json(holder)):
        raise RunConflict(f"{what} was just taken by {_read(storage, uri).describe()}; wait for it, or stop it first")
    return HeldLease(storage, prefix_uri, token + 1, holder)


def is_held(storage: Storage, prefix_uri: str) -> bool:
    """Return whether the newest lease has not been released; its holder may be dead."""
    token = _newest_token(storage, prefix_uri)
    return token > 0 and not _read(storage, _lease_uri(prefix_uri, token)).released


def settle(storage: Storage, prefix_uri: str, *, on_wait: Callable[[str], None] = log.info, what: str) -> None:
    """Return once nobody holds a lease; fence its holder off if that is dead.

    Args:
        storage: gives access to the lease.
        prefix_uri: folder of the lease objects.
        on_wait: called once with a message if this call has to wait.
        what: the thing that the lease protects, for messages.

    Raises:
        RunConflict: a living process holds it.
    """
    token = _newest_token(storage, prefix_uri)
    if not token:
        return
    holder = _wait_for_death(storage, _lease_uri(prefix_uri, token), DEAD_AFTER_S, on_wait, what)
    if not holder.released:
        with acquire(storage, prefix_uri, on_wait=on_wait, what=what):
            pass


def _newest_token(storage: Storage, prefix_uri: str) -> int:
    return max((int(found.key.removesuffix(".json")) for found in storage.list_objects(prefix_uri)), default=0)


def _wait_for_death(
    storage: Storage, uri: str, dead_after_s: float, on_wait: Callable[[str], None], what: str
) -> Holder:
    """Return the holder of a lease once it is dead or has released it; raise RunConflict if it renews the lease."""
    first = _read(storage, uri)
    deadline_s = time.monotonic() + dead_after_s
    announced = False
    holder = first
    while not (holder.released or holder.is_dead_here):
        if holder != first:
            raise RunConflict(f"{what} is held by {holder.describe()}, which is alive; wait for it, or stop it first")
        if time.monotonic() > deadline_s:
            return holder
        if not announced:
            on_wait(f"{what} is held by {holder.describe()}; waiting up to {dead_after_s:.0f} s to see if it is alive")
            announced = True
        time.sleep(min(1.0, dead_after_s / 4))
        holder = _read(storage, uri)
    return holder


def _read(storage: Storage, uri: str) -> Holder:
    return record_from_json(Holder, storage.read_bytes(uri), uri, cure="remove it if no process writes this run")


def _to_json(holder: Holder) -> bytes:
    return record_to_json(holder, indent=None, ensure_ascii=True)


def _lease_uri(prefix_uri: str, token: int) -> str:
    return join(prefix_uri, f"{token:08d}.json")


def _machine() -> str:
    """Return the boot id and the PID namespace of this process; empty on systems without them."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"  # noqa: PTH115 (not a path: pid:[4026531836])
    except OSError:
        return ""


def _has_ended(pid: int, started: str) -> bool:
    now = _process_started(pid)
    if now:
        return now != started
    try:
        os.kill(pid, 0)  # sends nothing; /proc may hide the processes of other users
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False


def _process_started(pid: int) -> str:
    """Return the start time of a process according to the kernel; empty if it has ended or is hidden."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[19]
