"""A web server on loopback that serves pictures and misbehaves on demand."""

from __future__ import annotations

import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.drawn import image_bytes


class Web:
    """Counts requests by path; its pictures are at ``/N.jpg``, its faults at the paths below.

    ``/status/CODE``, ``/loop`` (redirects to itself), ``/to?URL`` (redirects there), ``/reset``, ``/half`` (of the
    announced body), ``/drip`` (a byte now and then), ``/endless``, ``/flaky/N`` (a picture after N errors).
    """

    def __init__(self, server: ThreadingHTTPServer) -> None:
        self.url = f"http://127.0.0.1:{server.server_address[1]}"
        self.requests: Counter[str] = Counter()
        self.is_down = False
        """Every connection is reset."""
        self.keeps_alive = False
        """Connections are kept for the next request."""
        self.on_request: Callable[[str], None] = lambda path: None
        """Called with the path of a GET before it is answered, from any thread."""


class _Handler(BaseHTTPRequestHandler):
    web: Web
    stopped: threading.Event

    def do_GET(self) -> None:
        if self.web.keeps_alive:
            self.protocol_version = "HTTP/1.1"
            self.close_connection = False
        path, _, query = self.path.partition("?")
        self.web.requests[self.path] += 1
        self.web.on_request(path)
        number = path.rpartition("/")[2]
        if self.web.is_down or path == "/reset":
            self._reset()
        elif path.startswith("/status/"):
            self._answer(int(number), b"words")
        elif path == "/loop":
            self._answer(302, b"", Location="/loop")
        elif path == "/to":
            self._answer(301, b"", Location=query)
        elif path == "/half":
            self._answer(200, b"x" * 50, **{"Content-Length": "100"})
        elif path == "/drip":
            self._answer(200, b"", **{"Content-Length": "10000"})
            while not self.stopped.wait(0.05):
                self.wfile.write(b"x")
        elif path == "/endless":
            self._answer(200, b"", **{"Content-Length": ""})
            while not self.stopped.is_set():
                self.wfile.write(b"x" * 2**16)
        elif path.startswith("/flaky/") and self.web.requests[self.path] <= int(number):
            self._answer(503, b"")
        else:
            self._answer(200, image_bytes(20, 30))

    def do_HEAD(self) -> None:
        self._answer(405, b"")

    def _answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Say nothing of clients that leave."""


@contextmanager
def web_server() -> Iterator[Web]:
    """Serve while the block runs."""
    handler = type("Handler", (_Handler,), {"stopped": threading.Event()})
    server = _Server(("127.0.0.1", 0), handler)
    web = handler.web = Web(server)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield web
    finally:
        handler.stopped.set()
        server.shutdown()
        thread.join()
        server.server_close()


def dead_url() -> str:
    """Return the root of a port at which nobody listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{unused.getsockname()[1]}"
