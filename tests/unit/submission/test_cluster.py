"""Connecting to a cluster: wrong addresses and versions."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import ray

from stylemill.errors import ConfigError
from stylemill.submission.cluster import check_python_version, connect
from tests.clusters import free_port


@pytest.fixture(autouse=True)
def _address_of_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "")  # connecting changes it


@contextmanager
def dashboard(**answers: object) -> Iterator[str]:
    """A server that answers as a dashboard does: its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(answers.get(self.path.rpartition("/")[2], {})).encode()
            self.send_response(200 if body != b"{}" else 404)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.mark.parametrize("host", ["127.0.0.1", "no-such-host.invalid"])
def test_an_address_that_does_not_answer(host: str):
    host = f"{host}:{free_port()}"
    with pytest.raises(ConfigError, match="does not answer"):
        connect(f"http://{host}")


def test_something_else_answers():
    with dashboard() as address, pytest.raises(ConfigError, match="is not a Ray dashboard"):
        connect(address)


def test_another_ray():
    with dashboard(version={"ray_version": "2.9.0"}) as address, pytest.raises(ConfigError, match=r"runs Ray 2\.9\.0"):
        connect(address)


def test_another_python():
    python = {"data": {"pythonVersion": "3.9.1"}}
    with dashboard(version={"ray_version": ray.__version__}, cluster_metadata=python) as address:
        client = connect(address)
        with pytest.raises(ConfigError, match=r"runs Python 3\.9\.1, this is Python 3"):
            check_python_version(client, address)
