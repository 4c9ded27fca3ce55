"""The server of the vote page: blind, strict about votes, closed to pages of other sites."""

from __future__ import annotations

import json
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from stylemill.errors import ConfigError
from stylemill.experiments import vote_server
from stylemill.experiments.ballot import BallotBox
from stylemill.experiments.vote_server import VoteServer
from stylemill.storage import Storage
from tests.unit.experiments.tables import MODELS


@pytest.fixture
def server(box: BallotBox) -> Iterator[VoteServer]:
    served = VoteServer(Storage(), box, host="127.0.0.1", port=0)
    thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield served
    served.shutdown()
    served.server_close()
    thread.join()


def call(server: VoteServer, path: str, body: Any = None, **headers: str) -> tuple[int, bytes]:
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
    url = f"http://127.0.0.1:{server.server_address[1]}/{server.key}{path}"
    request = urllib.request.Request(url, data, headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=20) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_the_server_is_blind_and_takes_votes(server: VoteServer):
    status, text = call(server, "/next?voter=ann")
    state = json.loads(text)
    assert status == 200 and state["total"] == 4 and state["answered"] == 0
    seen = text
    for which in ("left", "right", "before"):
        status, picture = call(server, f"/picture/{state['question']}/{which}?voter=ann")
        assert status == 200 and picture.startswith(b"\x89PNG")
    vote = {"voter": "ann", "question": state["question"], "choice": "right", "seconds": 2.5}
    status, text = call(server, "/vote", vote)
    assert status == 200 and json.loads(text)["answered"] == 1
    status, again = call(server, "/vote", vote)
    assert status == 409 and b"the first answer counts" in again
    page = call(server, "/")[1]
    assert not any(model.encode() in seen + text + page for model in MODELS)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"voter": "ann", "question": "unknown", "choice": "left"}, 404),
        ({"voter": "../ann", "question": "unknown", "choice": "left"}, 400),
        ({"voter": "ann", "choice": "left"}, 400),
        (["no", "vote"], 400),
        ({"voter": "ann" * 4000}, 400),
    ],
)
def test_what_is_no_vote_is_refused(server: VoteServer, body: Any, status: int):
    assert call(server, "/vote", body)[0] == status
    assert server.box.num_votes == {}


def test_pages_of_other_sites_cannot_vote(server: VoteServer):
    question = next(iter(server.box.questions))
    vote = {"voter": "ann", "question": question, "choice": "left"}
    assert call(server, "/vote", vote, Host="evil.example")[0] == 403
    assert call(server, "/vote", vote, Content_Type="text/plain")[0] == 415
    assert call(server, "/nothing")[0] == 404
    assert server.box.num_votes == {}


def raw(server: VoteServer, text: str) -> bytes:
    """Send a request as it is and return all that comes back until the server closes the connection."""
    with socket.create_connection(("127.0.0.1", server.server_address[1]), timeout=20) as connection:
        connection.sendall(text.replace("KEY", server.key).encode("latin-1"))
        parts = []
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


VOTE = json.dumps({"voter": "ann", "question": "x", "choice": "left"})


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("POST /KEY/vote HTTP/1.1\r\nHost: localhost\r\nContent-Length: many\r\n\r\n", 400),
        ("POST /KEY/vote HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n", 400),
        ("POST /KEY/vote HTTP/1.1\r\nHost: localhost\r\nContent-Length: \xb2\r\n\r\n", 400),
        (f"POST /KEY/vote HTTP/1.1\r\nHost: localhost\r\nContent-Length: {'9' * 5000}\r\n\r\n", 400),
        ("POST /KEY/vote HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        ("GET /KEY/ HTTP/1.1\r\nHost: [::1\r\n\r\n", 400),
        ("GET //[/KEY HTTP/1.1\r\nHost: localhost\r\n\r\n", 403),
        ("GET http://[/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", 403),
        ("GET /next?voter=ann HTTP/1.1\r\nHost: localhost\r\n\r\n", 403),
        ("GET /caf\xe9/next HTTP/1.1\r\nHost: localhost\r\n\r\n", 403),
        (f"POST /vote HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(VOTE)}\r\n\r\n{VOTE}", 403),
    ],
)
def test_strange_requests_and_those_without_the_key_are_refused_with_a_status(
    server: VoteServer, capfd: pytest.CaptureFixture[str], text: str, status: int
):
    answer = raw(server, text)
    assert answer.startswith(f"HTTP/1.1 {status} ".encode()), answer[:200]
    assert "Traceback" not in capfd.readouterr().err
    assert server.box.num_votes == {}


def test_a_connection_that_sends_nothing_is_closed(server: VoteServer, monkeypatch: pytest.MonkeyPatch):
    assert vote_server._Handler.timeout == 30
    monkeypatch.setattr(vote_server._Handler, "timeout", 0.2)
    assert raw(server, "") == b""
    begun = "POST /KEY/vote HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
    assert raw(server, begun) == b""


def test_no_site_can_frame_the_page_or_learn_its_url(server: VoteServer):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(server.url.rstrip("/"), timeout=20) as answer:
        assert answer.url.endswith(f"/{server.key}/")
        assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
        assert (answer.headers["X-Frame-Options"], answer.headers["Referrer-Policy"]) == ("DENY", "no-referrer")


def test_every_start_has_a_key_of_its_own(server: VoteServer):
    other = VoteServer(Storage(), server.box, host="127.0.0.1", port=0)
    other.server_close()
    assert other.key != server.key and len(other.key) >= 20


def test_a_port_in_use_is_said(server: VoteServer):
    with pytest.raises(ConfigError, match="cannot be used at"):
        VoteServer(Storage(), server.box, host="127.0.0.1", port=server.server_address[1])


def test_an_address_of_another_machine_is_said(server: VoteServer):
    for host in ("256.1.1.1", "192.0.2.1"):
        with pytest.raises(ConfigError, match="is not an address of this machine") as caught:
            VoteServer(Storage(), server.box, host=host, port=0)
        assert caught.value.field == "host"
