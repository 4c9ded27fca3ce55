"""Which hosts of the web are dead: a circuit breaker for each, and the rule that tells a dead host from a dead network.

A list of URLs names thousands of hosts, and many of them are gone for ever. ``Hosts`` decides when a host, or one
location, is given up, so that its sources become rows and no further source of the host waits for it. The rule: a
location is given up only while another one is answered. If nothing answers any more, the fault may be ours (the
network of this machine, a proxy, a resolver), and the retries go on until they end the run.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from stylemill.errors import Unreachable
from stylemill.storage.retry import TransientError

log = logging.getLogger(__name__)

MAX_ATTEMPTS = 3
"""Requests for one location that fail without an answer, or with an error of the server, before it is given up."""
MAX_TIMEOUTS = 2
"""The same for requests that waited for their whole time limit."""
THROTTLED_FOR_S = 30.0
"""A location whose host asks for patience (429) is given up after this time."""
MAX_REFUSALS = 3
"""A host that has ever answered is dead after so many locations in a row that were given up; another one at once."""
PAUSE_S = 60.0
"""A dead host is asked again after this time; after each further failure the time doubles ..."""
LONGEST_PAUSE_S = 600.0
"""... up to this one."""
MAX_PROBES = 8
"""Other hosts that are asked whether the network works."""
MAX_HOSTS = 10_000
"""Hosts that are remembered; lists are read in order of host, so old ones do not return."""


class NoAnswer(TransientError):
    """A request for a location that was not answered: no connection, a reset, a timeout.

    Args:
        message: what happened.
        timed_out: whether the request waited for its whole time limit.
    """

    def __init__(self, message: str, *, timed_out: bool = False) -> None:
        super().__init__(message)
        self.timed_out = timed_out


class ServerFault(TransientError):
    """The host answered with an error of its own (5xx), or asked for patience (429).

    Args:
        message: what it said.
        throttled: whether it asked for patience.
    """

    def __init__(self, message: str, *, throttled: bool = False) -> None:
        super().__init__(message)
        self.throttled = throttled


@dataclass
class _Location:
    """A location whose requests have failed so far."""

    first_s: float
    num_failures: int = 0


@dataclass
class _Host:
    """A host that has been asked."""

    has_answered: bool = False
    """With anything; errors of the server and silence are no answers."""
    num_given_up: int = 0
    """Locations in a row that were given up."""
    pause_s: float = 0.0
    """0 while the host is not dead."""
    ask_again_s: float = 0.0
    """Time at which one request may find out whether it lives again."""
    reason: str = ""


class Hosts:
    """Remembers, in one process, which locations and hosts fail and which answer; thread-safe.

    Args:
        answers: asks for a location once; returns whether it was answered, with whatever content or refusal.
        witnesses: locations that may be asked whether the network works, the best first.
    """

    def __init__(self, answers: Callable[[str], bool], witnesses: Callable[[], Iterable[str]] = tuple) -> None:
        self._answers = answers
        self._witnesses = witnesses
        self._failing: dict[str, _Location] = {}
        self._hosts: OrderedDict[str, _Host] = OrderedDict()
        self._last_answer: tuple[float, str] | None = None
        self._lock = threading.Lock()

    def check(self, url: str) -> None:
        """Raise Unreachable if the host of a URL is dead and not to be asked yet."""
        with self._lock:
            host = self._hosts.get(host_of(url))
            if host is None or not host.pause_s:
                return
            wait_s = host.ask_again_s - time.monotonic()
            if wait_s <= 0:
                host.ask_again_s += host.pause_s - wait_s  # this request finds out; others do not wait for it
                return
            raise Unreachable(f"{host_of(url)} is dead ({host.reason}); it is asked again in {wait_s:.0f} s")

    def answered(self, location: str, url: str) -> None:
        """Note that a location was answered, at the end of its redirects by this URL."""
        with self._lock:
            self._failing.pop(location, None)
            self._hosts.pop(host_of(url), None)
            self._remember(host_of(url), _Host(has_answered=True))
            self._last_answer = (time.monotonic(), location)

    def forget(self, location: str) -> None:
        """Note that a location is not asked for any more, without an answer."""
        with self._lock:
            self._failing.pop(location, None)

    def failed(self, location: str, url: str, fault: NoAnswer | ServerFault) -> None:
        """Note a failure; return if the location is to be tried again.

        Args:
            location: what was asked for.
            url: which URL failed: the location, or one that it redirects to.
            fault: what happened.

        Raises:
            Unreachable: the location is given up.
        """
        with self._lock:
            now_s = time.monotonic()
            failing = self._failing.setdefault(location, _Location(now_s))
            failing.num_failures += 1
            host = self._hosts.get(host_of(url))
            is_dead = host is not None and host.pause_s > 0
        if not is_dead and not _is_enough(failing, fault, now_s):
            return
        if not self._network_works(location, failing.first_s):
            log.info("%s is not answered, and nothing else is: the network may be down", location)
            return
        with self._lock:
            self._failing.pop(location, None)
            self._bury(host_of(url), fault)
        raise Unreachable(str(fault)) from fault

    def _bury(self, name: str, fault: NoAnswer | ServerFault) -> None:
        host = self._hosts.pop(name, _Host())
        self._remember(name, host)
        host.num_given_up += 1
        was_never_there = isinstance(fault, NoAnswer) and not host.has_answered
        if was_never_there or host.pause_s or host.num_given_up >= MAX_REFUSALS:
            host.reason = str(fault)
            host.pause_s = min(LONGEST_PAUSE_S, 2 * host.pause_s or PAUSE_S)
            host.ask_again_s = time.monotonic() + host.pause_s
            log.info("%s is dead for %.0f s: %s", name, host.pause_s, fault)

    def _remember(self, name: str, host: _Host) -> None:
        self._hosts[name] = host
        while len(self._hosts) > MAX_HOSTS:
            self._hosts.popitem(last=False)

    def _network_works(self, location: str, since_s: float) -> bool:
        """Return whether another location was answered since a time, or is answered now."""
        with self._lock:
            last = self._last_answer
        if last is not None and last[0] >= since_s:
            return True
        asked: set[str] = set()
        for witness in self._candidates(location, last):
            name = host_of(witness)
            if witness == location or name in asked:
                continue
            if len(asked) == MAX_PROBES:
                break
            asked.add(name)
            if self._answers(witness):
                self.answered(witness, witness)
                return True
        return False

    def _candidates(self, location: str, last: tuple[float, str] | None) -> Iterable[str]:
        """Yield locations to ask: the one that was answered last, then other hosts, then others of the same host."""
        if last is not None:
            yield last[1]
        same = []
        for witness in self._witnesses():
            if host_of(witness) != host_of(location):
                yield witness
            else:
                same.append(witness)
        yield from same


def _is_enough(failing: _Location, fault: NoAnswer | ServerFault, now_s: float) -> bool:
    """Return whether a location has failed often enough to be given up."""
    if isinstance(fault, ServerFault) and fault.throttled:
        return now_s - failing.first_s > THROTTLED_FOR_S
    most = MAX_TIMEOUTS if isinstance(fault, NoAnswer) and fault.timed_out else MAX_ATTEMPTS
    return failing.num_failures >= most


def host_of(url: str) -> str:
    """Return host and port of a URL as it writes them."""
    try:
        return urlsplit(url).netloc.lower()
    except ValueError:  # half an IPv6 address
        return url
