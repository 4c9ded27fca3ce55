"""HTTP server of the page on which people vote, built on the standard library's server.

Routes: ``/`` is the page, ``/next`` the next question of a voter, ``/picture/QUESTION/SIDE`` a picture, and a POST to
``/vote`` stores a vote. No answer contains the name of a model or of an image.
"""

from __future__ import annotations

import errno
import json
import logging
import socket
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from stylemill.errors import ConfigError, StorageError
from stylemill.experiments.ballot import BallotBox, VoteError, check_voter
from stylemill.report.decision_pages import render_vote_page
from stylemill.storage import Storage

log = logging.getLogger(__name__)
_MAX_BODY_BYTES = 4096
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
        """URL of the page."""
        host = "localhost" if self.host in (*_LOCAL, "0.0.0.0") else self.host
        return f"http://{host}:{self.server_address[1]}/"


class _Handler(BaseHTTPRequestHandler):
    server: VoteServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Send the page, the next question or a picture."""
        self._guarded(self._get)

    def do_POST(self) -> None:
        """Store a vote."""
        self._guarded(self._post)

    def log_message(self, format: str, *args: Any) -> None:
        """Log requests at the level DEBUG."""
        log.debug(format, *args)

    def _guarded(self, answer: Any) -> None:
        try:
            self._check_host()
            answer()
        except VoteError as error:
            self._send_json({"error": str(error)}, error.status)
        except StorageError as error:
            log.warning("request of a voter failed: %s", error)
            self._send_json({"error": f"not saved: {error}; try again"}, HTTPStatus.SERVICE_UNAVAILABLE)
        except (BrokenPipeError, ConnectionResetError):
            log.debug("the browser closed the connection before the response")

    def _check_host(self) -> None:
        """Refuse foreign host names that resolve here (DNS rebinding): their pages could vote for a visitor."""
        name = (urlsplit(f"//{self.headers.get('Host', '')}").hostname or "").lower()
        if self.server.host in _LOCAL and name not in _LOCAL:
            raise VoteError(HTTPStatus.FORBIDDEN, f"this page is served to localhost, not to {name!r}")

    def _get(self) -> None:
        parts = urlsplit(self.path)
        voter = parse_qs(parts.query).get("voter", [""])[0]
        steps = parts.path.strip("/").split("/")
        if parts.path == "/":
            self._send(self.server.page, "text/html; charset=utf-8")
        elif parts.path == "/next":
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

    def _post(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        if self.path != "/vote" or not 0 < length <= _MAX_BODY_BYTES:
            self.close_connection = True  # the body is not read, so the connection cannot be reused
            raise VoteError(HTTPStatus.BAD_REQUEST, "not a vote")
        body = self.rfile.read(length)
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

    def _send_json(self, value: dict[str, Any], status: int = HTTPStatus.OK) -> None:
        self._send(json.dumps(value).encode(), "application/json", status)

    def _send(self, body: bytes, content_type: str, status: int = HTTPStatus.OK) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(body)
