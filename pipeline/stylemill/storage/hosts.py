"""Which hosts of the web are dead: a circuit breaker for each, and the rule that tells a dead host from a dead network.

A list of URLs names thousands of hosts, and many of them are gone for ever. ``Hosts`` decides when a host, or one
location, is given up, so that its sources become rows and no further source of the host waits for it. Two rules:

- A location is given up only if another one is answered on a new connection. If nothing answers any more, the fault may
  be ours (the network of this machine, a proxy, a resolver), and the retries go on until they end the run.
- A fault must last. A host may restart, so it is waited for, but not for long: once per host. Only a host whose name
  does not exist, which most dead links of old lists are, is not waited for.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from stylemill.errors import Unreachable
from stylemill.storage.retry import TransientError
from stylemill.storage.uri import shown

log = logging.getLogger(__name__)

GIVE_UP_S = 20.0
"""A location is given up after failing for this time ..."""
HOST_WAIT_S = 60.0
"""... but a host that has answered before is waited for so long; so do the sources of a dead host, once, before they
become rows without a request of their own."""
MAX_PATIENCE = 3.0
"""Locations of one host that are given up so slowly; the next ones after ``MAX_ATTEMPTS``. A host of 100,000 URLs, most
of them with an error of the server, would otherwise take weeks."""
ANSWERS_PER_PATIENCE = 32
"""Answers of a host after which one more location of it is given up slowly."""
MAX_ATTEMPTS = 3
"""Requests for one location that fail without an answer, or with an error of the server, before it is given up."""
MAX_TIMEOUTS = 2
"""The same for requests that waited for their whole time limit."""
THROTTLED_FOR_S = 30.0
"""A location whose host asks for patience (429) is given up after this time."""
PAUSE_S = 60.0
"""A dead host is asked again after this time; after each further failure of that request the time doubles ..."""
LONGEST_PAUSE_S = 600.0
"""... up to this one."""
MAX_PROBES = 8
"""Other hosts that are asked whether the network works."""
MIN_WITNESSES = 3
"""Hosts of the same scheme and port that must be silent before the network counts as down for that scheme; if the list
has fewer, those of the same scheme are asked, and then all."""
MAX_HOSTS = 10_000
"""Hosts that are remembered; lists are read in order of host, so old ones do not return."""


class NoAnswer(TransientError):
    """A request for a location that was not answered: no connection, a reset, a timeout.

    Args:
        message: what happened.
        timed_out: whether the request waited for its whole time limit.
        has_no_name: whether the resolver says that there is no such host; it says otherwise if it is down itself.
    """

    def __init__(self, message: str, *, timed_out: bool = False, has_no_name: bool = False) -> None:
        super().__init__(message)
        self.timed_out = timed_out
        self.has_no_name = has_no_name


class ServerFault(TransientError):
    """The host answered with an error of its own (5xx), or asked for patience (429).

    Args:
        message: what it said.
        throttled: whether it asked for patience.
    """

    def __init__(self, message: str, *, throttled: bool = False) -> None:
        super().__init__(message)
        self.throttled = throttled


class HostAwaited(TransientError):
    """A host does not answer and may be restarting: its sources wait."""


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
    last_answer_s: float = float("-inf")
    silent_since_s: float | None = None
    """Time of its first failure since then."""
    patience: float = MAX_PATIENCE
    """Locations that may still be given up slowly."""
    pause_s: float = 0.0
    """0 while the host is not dead."""
    is_awaited: bool = False
    """Its sources wait for the first request to a dead host."""
    ask_again_s: float = 0.0
    """Time at which one request may find out whether it lives again."""
    asked_by: str = ""
    """Location of that request."""
    reason: str = ""


class Hosts:
    """Remembers, in one process, which locations and hosts fail and which answer; thread-safe.

    Args:
        answers: asks for a location once, on a new connection; returns whether it was answered, with whatever content
            or refusal.
        witnesses: locations that may be asked whether the network works, the best first.
        deadline_s: seconds after which the caller's retries end; the waits below are shorter.
    """

    def __init__(
        self,
        answers: Callable[[str], bool],
        witnesses: Callable[[], Iterable[str]] = tuple,
        deadline_s: float = float("inf"),
    ) -> None:
        self._answers = answers
        self._witnesses = witnesses
        self._give_up_s = min(GIVE_UP_S, deadline_s / 6)
        self._host_wait_s = min(HOST_WAIT_S, deadline_s / 2)
        self._failing: dict[str, _Location] = {}
        self._hosts: OrderedDict[str, _Host] = OrderedDict()
        self._last_answered: OrderedDict[str, str] = OrderedDict()
        """A location of each host that was answered last, the oldest first."""
        self._proofs_s: dict[tuple[str, int | None], float] = {}
        """Scheme and port: when a location of them was last answered on a new connection."""
        self._known_witnesses: list[str] = []
        self._known_until_s = 0.0
        self._lock = threading.Lock()

    def check(self, location: str, url: str) -> None:
        """Raise an error if the host of a URL is dead and not to be asked yet.

        Args:
            location: what is read.
            url: the location, or one that it redirects to.

        Raises:
            HostAwaited: it is asked again soon; try again.
            Unreachable: the location is given up.
        """
        with self._lock:
            host = self._hosts.get(host_of(url))
            if host is None or not host.pause_s:
                return
            wait_s = host.ask_again_s - time.monotonic()
            if wait_s <= 0:  # this request finds out; others do not ask meanwhile
                host.is_awaited = host.is_awaited and not host.asked_by
                pause_s = self._host_wait_s / 2 if host.is_awaited else host.pause_s
                host.ask_again_s += pause_s - wait_s
                host.asked_by = location
                return
            if host.is_awaited:
                raise HostAwaited(f"{host_of(url)} does not answer ({host.reason})")
            self._failing.pop(location, None)
            raise Unreachable(f"{host_of(url)} is dead ({host.reason}); it is asked again in {wait_s:.0f} s")

    def answered(self, location: str, url: str) -> None:
        """Note that a location was answered, at the end of its redirects by this URL."""
        with self._lock:
            self._failing.pop(location, None)
            self._last_answered.pop(host_of(location), None)
            self._last_answered[host_of(location)] = location
            if len(self._last_answered) > MAX_PROBES:
                self._last_answered.popitem(last=False)
        self.lives(url)

    def lives(self, url: str) -> None:
        """Note that the host of a URL answered, be it with a redirect."""
        with self._lock:
            before = self._hosts.pop(host_of(url), _Host())
            patience = min(MAX_PATIENCE, before.patience + 1 / ANSWERS_PER_PATIENCE)
            self._remember(host_of(url), _Host(has_answered=True, last_answer_s=time.monotonic(), patience=patience))

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
            host = self._hosts.pop(host_of(url), _Host())
            self._remember(host_of(url), host)
            if host.silent_since_s is None:
                host.silent_since_s = now_s
            if not self._is_enough(location, failing, host, fault, now_s):
                return
        if not self._network_works(location, url, failing.first_s):
            log.info("%s is not answered, and nothing else is: the network may be down", shown(location))
            with self._lock:
                if host.asked_by == location:  # this says nothing of the host
                    host.ask_again_s = time.monotonic()
            return
        with self._lock:
            self._failing.pop(location, None)
            host = self._hosts.get(host_of(url), host)  # it may have answered meanwhile
            host.patience = max(0.0, host.patience - 1)
            self._bury(location, host_of(url), host, fault)
        raise Unreachable(str(fault)) from fault

    def _is_enough(
        self, location: str, failing: _Location, host: _Host, fault: NoAnswer | ServerFault, now_s: float
    ) -> bool:
        """Return whether a location has failed often and long enough to be given up."""
        if host.pause_s:  # those that wait for a dead host are not given up by requests that were sent before its death
            return host.asked_by == location or not host.is_awaited
        if isinstance(fault, ServerFault) and fault.throttled:
            return now_s - failing.first_s > THROTTLED_FOR_S
        most = MAX_TIMEOUTS if isinstance(fault, NoAnswer) and fault.timed_out else MAX_ATTEMPTS
        if failing.num_failures < most:
            return False
        if host.patience < 1 or (isinstance(fault, NoAnswer) and fault.has_no_name):
            return True
        if host.last_answer_s >= failing.first_s or host.silent_since_s is None:
            return now_s - failing.first_s >= self._give_up_s
        is_gone = isinstance(fault, NoAnswer) and host.has_answered
        return now_s - host.silent_since_s >= (self._host_wait_s if is_gone else self._give_up_s)

    def _bury(self, location: str, name: str, host: _Host, fault: NoAnswer | ServerFault) -> None:
        """Note a location that was given up: its host is dead if it has been silent for long enough."""
        now_s = time.monotonic()
        if host.pause_s:
            if host.asked_by == location:  # and not one of many requests that were in flight
                host.pause_s = min(LONGEST_PAUSE_S, host.pause_s * (1 if host.is_awaited else 2))
                host.ask_again_s, host.is_awaited, host.asked_by = now_s + host.pause_s, False, ""
            return
        if host.silent_since_s is None:
            return
        was_never_there = isinstance(fault, NoAnswer) and not host.has_answered
        has_no_name = isinstance(fault, NoAnswer) and fault.has_no_name
        least_s = self._give_up_s if was_never_there else self._host_wait_s
        if now_s - host.silent_since_s < least_s and not has_no_name:
            return
        host.reason = str(fault)
        host.pause_s = PAUSE_S
        host.is_awaited = not has_no_name
        host.ask_again_s = now_s + PAUSE_S if has_no_name else max(now_s, host.silent_since_s + self._host_wait_s)
        log.info("%s is dead: %s", name, fault)

    def _remember(self, name: str, host: _Host) -> None:
        self._hosts[name] = host
        while len(self._hosts) > MAX_HOSTS:
            self._hosts.popitem(last=False)

    def _network_works(self, location: str, url: str, since_s: float) -> bool:
        """Return whether another location was answered on a new connection since a time, or is answered now."""
        with self._lock:
            proved_s = self._proofs_s.get(_scheme_and_port(url))
        if proved_s is not None and proved_s >= since_s:
            return True
        for witness in self._candidates(location, url):
            if self._answers(witness):
                self.lives(witness)
                with self._lock:
                    self._proofs_s[_scheme_and_port(url)] = time.monotonic()
                return True
        return False

    def _candidates(self, location: str, url: str) -> Iterator[str]:
        """Yield locations to ask: of other hosts with the same scheme and port if there are some, then of the same."""
        others: dict[str, str] = {}
        same = []
        if not self._known_witnesses or time.monotonic() > self._known_until_s:  # a plan may grow
            self._known_witnesses, self._known_until_s = list(self._witnesses()), time.monotonic() + PAUSE_S
        with self._lock:
            answered = list(reversed(self._last_answered.values()))
        for witness in [*answered, *self._known_witnesses]:
            if host_of(witness) != host_of(url):
                others.setdefault(host_of(witness), witness)
            elif witness not in (location, url):
                same.append(witness)
        key = _scheme_and_port(url)
        best = [witness for witness in others.values() if _scheme_and_port(witness) == key]
        if len(best) < MIN_WITNESSES:
            best = [witness for witness in others.values() if _scheme_and_port(witness)[0] == key[0]]
        if len(best) < MIN_WITNESSES:  # a few dead hosts of a rare scheme must not stop the run
            best = sorted(others.values(), key=lambda witness: _scheme_and_port(witness)[0] != key[0])
        yield from best[:MAX_PROBES]
        yield from same[:MIN_WITNESSES]


def host_of(url: str) -> str:
    """Return host and port of a URL as it writes them, without a login."""
    try:
        return urlsplit(url).netloc.rpartition("@")[2].lower()
    except ValueError:  # half an IPv6 address
        return shown(url)


def _scheme_and_port(url: str) -> tuple[str, int | None]:
    try:
        parts = urlsplit(url)
        return parts.scheme, parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        return "", None
