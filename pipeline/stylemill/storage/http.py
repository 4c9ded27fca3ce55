"""The web as a store: locations ``http://`` and ``https://``, which can be read and neither listed nor written.

Each request is one attempt; ``Storage`` repeats it. Every host is a store of its own that may be dead while all others
work, so ``Hosts`` decides when a location is given up.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from http.cookiejar import DefaultCookiePolicy
from typing import BinaryIO
from urllib.parse import urljoin

import requests
from requests.exceptions import InvalidSchema, InvalidURL, MissingSchema
from urllib3.exceptions import HTTPError, LocationParseError

from stylemill import __version__
from stylemill.errors import AccessDenied, ObjectNotFound, PathConflict, RedirectLoop, StorageError, Unreachable
from stylemill.storage.hosts import Hosts, NoAnswer, ServerFault
from stylemill.storage.options import StorageOptions
from stylemill.storage.store import ObjectStat
from stylemill.storage.uri import name, shown
from stylemill.storage.web_connections import Watch, new_session, watched

CONNECT_TIMEOUT_S = 5.0
"""Time for a connection; three packets of its opening may be lost. Less if ``timeout_s`` is less."""
MAX_REDIRECTS = 10
LEAST_BYTES_PER_S = 1024
"""A body that comes more slowly than this, after ``timeout_s``, counts as not answered."""
BODY_S = 120.0
"""So does a body that takes longer than this, and ..."""
USUAL_BYTES_PER_S = 2**16
"""... the time for its bytes at this rate."""

_CHUNK_BYTES = 2**16
_LARGE_BYTES = 2**28
"""Supposed where neither the host nor the caller says how many bytes are to come."""
_GONE = (404, 410)
_THROTTLED = (429,)
_TRANSIENT = (407, 408, 425)
"""Besides 429 and 5xx; 407 is a refusal of our own proxy, not of the host."""
_HEADERS = {
    "User-Agent": f"stylemill/{__version__}",
    "Accept": "image/*, */*;q=0.8",
    "Accept-Encoding": "identity",  # pictures are compressed already
}


class HttpStore:
    """Objects of the web, one per URL. Proxies and certificates come from the usual environment variables.

    Args:
        options: time limits.
        witnesses: locations that may be asked whether the network works (see ``Hosts``).
    """

    def __init__(self, options: StorageOptions, witnesses: Callable[[], Iterable[str]] = tuple) -> None:
        self._timeout_s = options.timeout_s
        self._hosts = Hosts(self._answers, witnesses, options.retry_deadline_s)
        self._session = new_session(_HEADERS, 32)
        # Cookies of one picture are of no use to the next, and those of many hosts would fill memory.
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))

    def read(self, path: str) -> bytes:
        """Return the whole content of a URL."""
        with self._attempt(path) as attempt:
            return attempt.body(path, {}, None)

    def read_range(self, path: str, start: int, size_bytes: int) -> bytes:
        """Return at most ``size_bytes`` of the content of a URL, from the byte ``start`` on."""
        wanted = {"Range": f"bytes={start}-{start + size_bytes - 1}"} if start else {}  # a head is cut off here
        with self._attempt(path) as attempt:
            return attempt.body(path, wanted, size_bytes, start)

    def copy_some(self, path: str, file: BinaryIO, size_bytes: int) -> bool:
        """Copy ``size_bytes`` of a URL, from the byte at the end of a file on, into it; return whether that was all.

        If the host knows no ranges, all the rest is copied.
        """
        start = file.tell()
        wanted = {"Range": f"bytes={start}-{start + size_bytes - 1}"}
        with self._attempt(path) as attempt, attempt.get(path, wanted) as answer:
            if answer.status_code == 416:
                return True
            is_part = answer.status_code == 206
            skipped = 0 if is_part else start
            for chunk in attempt.chunks(answer):
                file.write(chunk[skipped:])
                skipped = max(0, skipped - len(chunk))
            _, _, total = answer.headers.get("Content-Range", "").partition("/")
            return not is_part or file.tell() == start or (total.isdecimal() and file.tell() >= int(total))

    def stat(self, path: str) -> ObjectStat:
        """Return size (0 if the host does not say it) and etag of a URL, by a GET: many hosts refuse HEAD."""
        with self._attempt(path) as attempt, attempt.get(path, {}) as answer:
            length = answer.headers.get("Content-Length", "")
            size_bytes = int(length) if length.isdecimal() and "Content-Encoding" not in answer.headers else 0
            etag = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
            return ObjectStat(path, name(path), size_bytes, etag.strip('"'))

    def list_objects(self, root: str, after: str = "") -> Iterator[ObjectStat]:
        """Yield nothing: the web has no listings."""
        del root, after
        return iter(())

    def write(self, path: str, data: bytes, *, durable: bool = False) -> None:
        """Refuse."""
        raise StorageError(f"{shown(path)}: nothing can be written over http")

    def create(self, path: str, data: bytes, *, durable: bool = True) -> bool:
        """Refuse."""
        raise StorageError(f"{shown(path)}: nothing can be written over http")

    def delete(self, path: str) -> None:
        """Refuse."""
        raise StorageError(f"{shown(path)}: nothing can be deleted over http")

    def delete_all(self, paths: Sequence[str]) -> None:
        """Refuse."""
        raise StorageError(f"{shown(paths[0])}: nothing can be deleted over http")

    def remove_leftovers(self, root: str, older_than_s: float) -> None:
        """Do nothing: nothing can be written there."""

    @contextmanager
    def _attempt(self, location: str) -> Iterator[_Attempt]:
        """Tell ``Hosts`` how the requests in the block end.

        Raises:
            Unreachable: the location is given up.
            TransientError: it is to be tried again.
        """
        attempt = _Attempt(
            self._session, self._timeout_s, lambda url: self._hosts.check(location, url), self._hosts.lives
        )
        try:
            with watched(attempt.watch):
                yield attempt
        except (NoAnswer, ServerFault) as fault:
            self._hosts.failed(location, attempt.url, fault)
            raise
        except (ObjectNotFound, AccessDenied):
            self._hosts.answered(location, attempt.url)
            raise
        except (PathConflict, Unreachable):
            self._hosts.forget(location)
            raise
        self._hosts.answered(location, attempt.url)

    def _answers(self, location: str) -> bool:
        """Return whether a location is answered on a new connection: a kept one says nothing of names and routes."""
        with new_session(_HEADERS | {"Connection": "close"}, 0) as session:
            attempt = _Attempt(session, min(CONNECT_TIMEOUT_S, self._timeout_s), lambda _: None, lambda _: None)
            try:
                with watched(attempt.watch), attempt.get(location, {}):
                    return True
            except (ObjectNotFound, AccessDenied):
                return True
            except (NoAnswer, ServerFault, PathConflict):
                return False


class _Attempt:
    """One attempt to read a location: a request, and one more for each redirect.

    Args:
        session: sends requests.
        timeout_s: seconds without an answer, and for all headers and redirects together.
        check: raises an error for a URL that is not to be asked.
        lives: is told which URLs redirect.
    """

    def __init__(
        self,
        session: requests.Session,
        timeout_s: float,
        check: Callable[[str], None],
        lives: Callable[[str], None],
    ) -> None:
        self._session = session
        self._timeouts_s = (min(CONNECT_TIMEOUT_S, timeout_s), timeout_s)
        self._check = check
        self._lives = lives
        self.watch = Watch()
        self.url = ""
        """The URL that is being asked."""

    def body(self, location: str, headers: dict[str, str], size_bytes: int | None, start: int = 0) -> bytes:
        """Return the content of a location, or at most ``size_bytes`` of it from ``start`` on."""
        with self.get(location, headers) as answer:
            if answer.status_code == 416:
                return b""
            skipped = 0 if answer.status_code == 206 else start
            wanted = None if size_bytes is None else skipped + size_bytes
            data = bytearray()
            for chunk in self.chunks(answer, wanted):
                data += chunk
            return bytes(memoryview(data)[skipped:wanted])

    def chunks(self, answer: requests.Response, wanted: int | None = None) -> Iterator[bytes]:
        """Yield the content of an answer until it ends, or until at least ``wanted`` bytes have come."""
        raw = answer.raw
        begin_s, num_bytes = time.monotonic(), 0
        self.watch.limit(BODY_S + min(raw.length_remaining or _LARGE_BYTES, wanted or _LARGE_BYTES) / USUAL_BYTES_PER_S)
        with self._translated_errors():
            # What has come so far: iter_content waits until a chunk is full, and for a slow host that is for ever.
            while chunk := raw.read1(_CHUNK_BYTES, decode_content=True):
                yield chunk
                num_bytes += len(chunk)
                if wanted is not None and num_bytes >= wanted:
                    return
                if raw.length_remaining != 0:  # else the rest is what the decoder still holds
                    self._check_pace(num_bytes, time.monotonic() - begin_s)
            if self.watch.has_cut and raw.length_remaining != 0:
                raise NoAnswer(f"{shown(self.url)}: its body did not end", timed_out=True)

    def _check_pace(self, num_bytes: int, spent_s: float) -> None:
        """Raise NoAnswer if a body that is not complete comes too slowly."""
        is_slow = spent_s > self._timeouts_s[1] and num_bytes < LEAST_BYTES_PER_S * spent_s
        if is_slow or spent_s > BODY_S + num_bytes / USUAL_BYTES_PER_S:
            problem = f"only {num_bytes:,} bytes came in {spent_s:.0f} s"
            raise NoAnswer(f"{shown(self.url)}: {problem}", timed_out=True)

    def get(self, location: str, headers: dict[str, str]) -> requests.Response:
        """Return the answer at the end of a location's redirects, its body not read yet.

        Raises:
            ObjectNotFound: 404, 410.
            AccessDenied: another refusal, or redirects without an end.
            PathConflict: it, or what it redirects to, is not a URL.
        """
        self.url = location
        self.watch.limit(self._timeouts_s[1] + self._timeouts_s[0])
        for number in range(MAX_REDIRECTS + 1):
            self._check(self.url)
            with self._translated_errors():
                answer = self._session.get(
                    self.url, headers=headers, timeout=self._timeouts_s, stream=True, allow_redirects=False
                )
                # Only a list that itself names a host of the private network may be led there.
                self.watch.refuses_private = not self.watch.is_private if not number else self.watch.refuses_private
                target = self._session.get_redirect_target(answer)
                if target is None:
                    break
                answer.close()
                self._lives(self.url)
                self.url = urljoin(answer.url, target)
        else:
            last = shown(self.url)
            raise RedirectLoop(f"{shown(location)}: more than {MAX_REDIRECTS} redirects, the last to {last}")
        try:
            _check_status(answer, location, may_be_empty="Range" in headers)
        except BaseException:
            answer.close()
            raise
        return answer

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        """Raise NoAnswer, PathConflict or AccessDenied for the errors of requests and of the watch."""
        try:
            yield
        except AccessDenied as error:
            raise AccessDenied(f"{shown(self.url)}: {error}") from None
        except (InvalidURL, InvalidSchema, MissingSchema, LocationParseError) as error:
            raise PathConflict(f"{shown(self.url)} is not a URL that can be read ({type(error).__name__})") from error
        except (requests.RequestException, HTTPError, OSError) as error:
            timed_out = self.watch.has_cut or isinstance(error, requests.Timeout) or "timed out" in str(error)
            reason = "the time for an answer is over" if self.watch.has_cut else _reason(error)
            message = f"{shown(self.url)}: {reason}"
            raise NoAnswer(message, timed_out=timed_out, has_no_name=_has_no_name(error)) from error
        except ValueError as error:  # a host or a redirect that no URL may have
            raise PathConflict(f"{shown(self.url)} is not a URL that can be read: {error}") from error


def _check_status(answer: requests.Response, location: str, *, may_be_empty: bool) -> None:
    status = answer.status_code
    text = f"{shown(location)}: HTTP {status} {answer.reason or ''}".rstrip()
    if status in (200, 203, 206) or (status == 416 and may_be_empty):
        return
    if status in _GONE:
        raise ObjectNotFound(text)
    if status in _THROTTLED:
        raise ServerFault(text, throttled=True)
    if status in _TRANSIENT or status >= 500:
        raise ServerFault(text)
    raise AccessDenied(text)


def _has_no_name(error: BaseException) -> bool:
    """Return whether a request failed because the name of its host does not exist."""
    cause: BaseException | None = error
    for _ in range(10):  # requests, urllib3 and the socket wrap each other's errors
        if cause is None:
            return False
        if isinstance(cause, socket.gaierror):
            return cause.errno == socket.EAI_NONAME
        cause = cause.__cause__ or cause.__context__
    return False


def _reason(error: BaseException) -> str:
    """Return the innermost cause: that of requests and urllib3 repeats the URL and names Python objects."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return f"{type(error).__name__}: {' '.join(str(error).split()) or 'no answer'}"
