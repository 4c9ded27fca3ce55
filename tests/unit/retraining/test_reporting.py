"""The webhook receives outcomes, on a real server on loopback."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from stylemill.errors import ConfigError
from stylemill.retraining.reporting import MAX_ATTEMPTS, SIGNATURE_HEADER, notify
from tests.retraining_runs import Trainer, fire, make_config


class _Hook(HTTPServer):
    """Answers with the statuses that a test gives it, in order, then with 200."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.statuses: list[int] = []
        self.seen: list[tuple[bytes, dict[str, str]]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook"


class _Handler(BaseHTTPRequestHandler):
    server: _Hook

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.seen.append((body, dict(self.headers)))
        self.send_response(self.server.statuses.pop(0) if self.server.statuses else 200)
        self.end_headers()

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def hook() -> Iterator[_Hook]:
    server = _Hook()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_body_is_signed_and_holds_no_secret(hook: _Hook):
    assert notify(hook.url, b'{"decision": "kept"}', "a-secret-of-many-letters")
    ((body, headers),) = hook.seen
    expected = hmac.new(b"a-secret-of-many-letters", body, hashlib.sha256).hexdigest()
    assert headers[SIGNATURE_HEADER] == f"sha256={expected}"
    assert b"a-secret" not in body and "a-secret" not in str(headers)


@pytest.mark.parametrize(
    ("statuses", "taken", "num_calls"), [([503, 429, 500], True, 4), ([500] * 9, False, MAX_ATTEMPTS)]
)
def test_temporary_failures_are_retried_within_a_bound(hook: _Hook, statuses: list[int], taken: bool, num_calls: int):
    hook.statuses = list(statuses)
    assert notify(hook.url, b"{}", None, first_pause_s=0.001) is taken
    assert len(hook.seen) == num_calls
    assert all(SIGNATURE_HEADER not in headers for _, headers in hook.seen)


def test_a_refusal_is_not_retried(hook: _Hook, caplog: pytest.LogCaptureFixture):
    hook.statuses = [403]
    assert not notify(hook.url + "?token=hidden", b"{}", None, first_pause_s=0.001)
    assert len(hook.seen) == 1 and "403" in caplog.text and "hidden" not in caplog.text


def test_a_server_that_is_down_is_reported_as_false(hook: _Hook):
    hook.shutdown()
    hook.server_close()
    assert not notify(hook.url, b"{}", None, first_pause_s=0.001)


def test_an_outcome_is_posted_once_and_by_the_next_firing_after_a_failure(hook: _Hook, tmp_path: Path):
    config, trainer = make_config(tmp_path), Trainer()
    hook.statuses = [403]
    assert fire(config, trainer, webhook=hook.url).is_notified is False
    again = fire(config, trainer, webhook=hook.url)
    assert (again.is_new, again.is_notified) == (False, True)
    assert fire(config, trainer, webhook=hook.url).is_notified and len(hook.seen) == 2
    posted = json.loads(hook.seen[-1][0])
    assert (posted["decision"], posted["champion"]) == ("promoted", "first")


def test_the_environment_may_name_the_webhook(hook: _Hook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("STYLEMILL_WEBHOOK", hook.url)
    assert fire(make_config(tmp_path), Trainer()).is_notified and len(hook.seen) == 1


def test_a_wrong_webhook_in_the_environment_stops_a_firing_before_it_does_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("STYLEMILL_WEBHOOK", "hooks.example/hunter2")
    config, trainer = make_config(tmp_path), Trainer()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ConfigError, match="STYLEMILL_WEBHOOK") as caught:
        fire(config, trainer)
    assert "hunter2" not in str(caught.value) and sorted(tmp_path.rglob("*")) == before
