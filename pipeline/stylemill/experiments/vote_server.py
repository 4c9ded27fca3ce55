"""HTTP server of the page on which people vote, built on the standard library's server.

Routes: ``/KEY/`` is the page, ``/KEY/next`` the next question of a voter, ``/KEY/picture/QUESTION/SIDE`` a picture, and
a POST to ``/KEY/vote`` stores a vote. The key is drawn at every start; only who was given the URL knows it. No answer
contains the name of a model or of an image.
"""

from __future__ import annotations

import errno
import hmac
import json
import logging
import secrets
import socket
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import SplitResult, parse_qs, urlsplit

from stylemill.errors import ConfigError, StorageError
from stylemill.experiments.ballot import BallotBox, VoteError, check_voter
from stylemill.report.decision_pages import render_vote_page
from stylemill.storage import Storage

log = logging.getLogger(__name__)
_MAX_BODY_BYTES = 4096
_IDLE_S = 30
"""Seconds after which a connection that sends nothing is closed, so that forgotten ones do not use up threads."""
_LOCAL = ("127.0.0.1", "localhost", "::1")


class VoteServer(ThreadingHTTPServer):
    """Serves a ballot until it is shut down.

    Args:
        storage: storage of the pictures.
        box: questions and answers.
        host: address to listen on.
        port: port to listen on; 0 takes a free one.

    Raises:
        ConfigError: the host is not an address of this machine, or the port cannot be used.
    """

    daemon_threads = True

    def __init__(self, storage: Storage, box: BallotBox, *, host: str, port: int) -> None:
        self.storage, self.box, self.host = storage, box, host
        self.key = secrets.token_urlsafe(16)
        self.page = render_vote_page().encode()
        try:
            super().__init__((host, port), _Handler)
        except OSError as error:
            if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
                cure = "give an address such as 127.0.0.1 or 0.0.0.0"
                raise ConfigError("host", host, f"is not an address of this machine ({error.strerror})", cure) from None
            problem = f"cannot be used at {host} ({error.strerror})"
            raise ConfigError("port", port, problem, "choose another --port; 0 takes a free one") from None

    @property
    def url(self) -> str:
        """URL of the page, with the key."""
        host = "localhost" if self.host in (*_LOCAL, "0.0.0.0") else self.host
        return f"http://{host}:{self.server_address[1]}/{self.key}/"


class _Handler(BaseHTTPRequestHandler):
    server: VoteServer
    protocol_version = "HTTP/1.1"
    timeout = _IDLE_S

    def do_GET(self) -> None:
        """Send the page, the next question or a picture."""
        self._guarded(self._get)

    def do_POST(self) -> None:
        """Store a vote."""
        self._guarded(self._post)

    def log_message(self, format: str, *args: Any) -> None:
        """Log requests at the level DEBUG, without the key."""
        log.debug("%s", (format % args).replace(self.server.key, "KEY"))

    def _guarded(self, answer: Any) -> None:
        try:
            self._check_host()
            answer(self._route())
        except VoteError as error:
            self._send_json({"error": str(error)}, error.status)
        except StorageError as error:
            log.warning("request of a voter failed: %s", error)
            self._send_json({"error": f"not saved: {error}; try again"}, HTTPStatus.SERVICE_UNAVAILABLE)
        except (BrokenPipeError, ConnectionResetError, TimeoutError):
            log.debug("the browser closed the connection or stopped sending")
            self.close_connection = True

    def _check_host(self) -> None:
        """Refuse foreign host names that resolve here (DNS rebinding): their pages could vote for a visitor."""
        try:
            name = (urlsplit(f"//{self.headers.get('Host', '')}").hostname or "").lower()
        except ValueError:
            raise self._bad_request("the host is not a name") from None
        if self.server.host in _LOCAL and name not in _LOCAL:
            raise VoteError(HTTPStatus.FORBIDDEN, f"this page is served to localhost, not to {name!r}")

    def _route(self) -> SplitResult:
        """Return the request's path below the key, and its query."""
        try:
            parts = urlsplit(self.path)
        except ValueError:
            raise self._bad_request("the path is not a path") from None
        key, _, rest = parts.path.removeprefix("/").partition("/")
        if not hmac.compare_digest(key.encode(), self.server.key.encode()):
            # A body is not read, so the connection cannot be reused.
            self.close_connection = True
            raise VoteError(HTTPStatus.FORBIDDEN, "this link is not valid; ask for the one that stylemill vote prints")
        return parts._replace(path=rest)

    def _bad_request(self, problem: str) -> VoteError:
        self.close_connection = True
        return VoteError(HTTPStatus.BAD_REQUEST, problem)

    def _get(self, route: SplitResult) -> None:
        voter = parse_qs(route.query).get("voter", [""])[0]
        steps = route.path.split("/")
        if not route.path and not urlsplit(self.path).path.endswith("/"):
            self._redirect()  # the page's own links are relative
        elif not route.path:
            self._send(self.server.page, "text/html; charset=utf-8")
        elif route.path == "next":
            self._send_json(self._next(voter))
        elif len(steps) == 3 and steps[0] == "picture":
            self._send(self._picture(voter, steps[1], steps[2]), "image/png")
        else:
            raise VoteError(HTTPStatus.NOT_FOUND, "not found")

    def _next(self, voter: str) -> dict[str, Any]:
        question, answered = self.server.box.next_question(voter)
        return {
            "question": question and question.identity,
            "answered": answered,
            "total": len(self.server.box.questions),
        }

    def _picture(self, voter: str, identity: str, which: str) -> bytes:
        check_voter(voter)
        question = self.server.box.questions.get(identity)
        if question is None or which not in ("left", "right", "before"):
            raise VoteError(HTTPStatus.NOT_FOUND, "picture not found")
        if which == "before":
            return self.server.storage.read_bytes(question.source)
        model = self.server.box.sides(voter, question)[which == "right"]
        return self.server.storage.read_bytes(question.pictures[model])

    def _post(self, route: SplitResult) -> None:
        text = self.headers.get("Content-Length") or ""
        length = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
        if route.path != "vote" or not 0 < length <= _MAX_BODY_BYTES:
            raise self._bad_request("not a vote")
        body = self.rfile.read(length)
        if len(body) < length:
            raise self._bad_request("the vote is incomplete")
        if self.headers.get_content_type() != "application/json":
            raise VoteError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "a vote must be JSON")
        try:
            vote = json.loads(body)
            voter, identity, choice = (str(vote[name]) for name in ("voter", "question", "choice"))
            seconds = float(vote.get("seconds", 0.0))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise VoteError(HTTPStatus.BAD_REQUEST, "a vote needs voter, question and choice") from None
        self.server.box.cast(voter, identity, choice, seconds)
        self._send_json(self._next(voter))

    def _redirect(self) -> None:
        self.send_response(HTTPStatus.FOUND)
        self.send_header("Location", f"/{self.server.key}/")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send_json(self, value: dict[str, Any], status: int = HTTPStatus.OK) -> None:
        self._send(json.dumps(value).encode(), "application/json", status)

    def _send(self, body: bytes, content_type: str, status: int = HTTPStatus.OK) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        # No other site may show the page in a frame and lead a voter to click, nor learn its URL.
        self.send_header("Content-Security-Policy", "frame-ancestors 'none'")
        self.send_header("X-Frame-Options", "DENY")
        self.send_header("Referrer-Policy", "no-referrer")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)
