"""Connections to the web that can be cut at a time, and that refuse the private network where they must.

The time limits of sockets count from the last byte, so a host that sends a byte now and then is never cut off by them.
``Watch`` closes the connection of the current thread after an absolute time, whatever it waits for.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from stylemill.errors import AccessDenied

_current = threading.local()


class Watch:
    """Cuts the connection of one attempt, once its time is over."""

    def __init__(self) -> None:
        self.has_cut = False
        self.refuses_private = False
        """Whether a connection to an address that is not of the public internet is refused."""
        self.is_private = False
        """Whether the last connection led to such an address."""
        self._socket: socket.socket | None = None
        self._timer: threading.Timer | None = None
        self._lock = threading.Lock()

    def limit(self, seconds: float) -> None:
        """Cut the connection after this time from now; replaces the previous limit."""
        self.end()
        self._timer = threading.Timer(seconds, self._cut)
        self._timer.daemon = True
        self._timer.start()

    def end(self) -> None:
        """Cut nothing any more."""
        if self._timer is not None:
            self._timer.cancel()

    def close(self) -> None:
        """Cut nothing any more, and give up the handle of the connection."""
        self.end()
        with self._lock:
            if self._socket is not None:
                self._socket.close()
                self._socket = None

    def use(self, connected: socket.socket) -> None:
        """Take the socket that the attempt uses from now on.

        Raises:
            AccessDenied: it leads to a private address and must not.
        """
        self.is_private = not _is_public(connected)
        if self.refuses_private and self.is_private:
            raise AccessDenied("it redirects from the public internet to a private address, which is not asked")
        with self._lock:
            if self._socket is not None:
                self._socket.close()
            # Its own handle: a connection that is not kept alive is closed before the body of its answer is read.
            self._socket = connected.dup()
            if self.has_cut:
                _shut(self._socket)

    def _cut(self) -> None:
        with self._lock:
            self.has_cut = True
            if self._socket is not None:
                _shut(self._socket)


@contextmanager
def watched(watch: Watch) -> Iterator[None]:
    """Let a watch hold the connections that this thread uses in the block; watches may be nested."""
    outer = getattr(_current, "watch", None)
    _current.watch = watch
    try:
        yield
    finally:
        watch.close()
        _current.watch = outer


def new_session(headers: dict[str, str], pool_size: int) -> requests.Session:
    """Return a session whose connections heed the watch of the thread that uses them.

    Args:
        headers: of every request.
        pool_size: connections that are kept alive, per host, and hosts; 0 for a new connection each time.
    """
    session = _Session()
    session.headers.update(headers)
    session.auth = _no_login
    for scheme in ("http://", "https://"):
        session.mount(scheme, _Adapter(pool_connections=max(1, pool_size), pool_maxsize=max(1, pool_size)))
    return session


class _Session(requests.Session):
    """Never follows a redirect, and so never reads the body of one: it may be endless."""

    def resolve_redirects(self, *_: Any, **__: Any) -> Iterator[Any]:
        return iter(())


def _no_login(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Send no login: without this, requests sends those of ``~/.netrc`` and of URLs."""
    return request


class _Twin:
    """Keeps a second handle of a connection's socket, which works also while TLS is being negotiated."""

    _twin: socket.socket | None = None

    def _new_conn(self) -> socket.socket:
        connected: socket.socket = super()._new_conn()  # type: ignore[misc]
        self._close_twin()
        self._twin = connected.dup()
        self._tell_watch()
        return connected

    def request(self, *args: Any, **named: Any) -> None:
        self._tell_watch()  # a connection that was kept alive
        super().request(*args, **named)  # type: ignore[misc]

    def close(self) -> None:
        self._close_twin()
        super().close()  # type: ignore[misc]

    def _tell_watch(self) -> None:
        watch = getattr(_current, "watch", None)
        if watch is not None and self._twin is not None:
            watch.use(self._twin)

    def _close_twin(self) -> None:
        if self._twin is not None:
            self._twin.close()
            self._twin = None


class _Connection(_Twin, HTTPConnection):
    pass


class _TlsConnection(_Twin, HTTPSConnection):
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


class _Adapter(HTTPAdapter):
    """Uses the connections above, also to a proxy."""

    def init_poolmanager(self, *args: Any, **named: Any) -> None:
        super().init_poolmanager(*args, **named)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}

    def proxy_manager_for(self, proxy: str, **named: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **named)
        manager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}
        return manager


def _is_public(connected: socket.socket) -> bool:
    try:
        host = connected.getpeername()[0]
        address = ipaddress.ip_address(host.partition("%")[0])
    except (OSError, ValueError):  # it was closed meanwhile, or is not of the internet
        return True
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_global


def _shut(connected: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it was closed meanwhile
        connected.shutdown(socket.SHUT_RDWR)
