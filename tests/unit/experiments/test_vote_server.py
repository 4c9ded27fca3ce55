"""The server of the vote page: blind, strict about votes, closed to pages of other sites."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from stylemill.errors import ConfigError
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
    request = urllib.request.Request(f"http://127.0.0.1:{server.server_address[1]}{path}", data, headers)
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


def test_a_port_in_use_is_said(server: VoteServer):
    with pytest.raises(ConfigError, match="cannot be used at"):
        VoteServer(Storage(), server.box, host="127.0.0.1", port=server.server_address[1])


def test_an_address_of_another_machine_is_said(server: VoteServer):
    for host in ("256.1.1.1", "192.0.2.1"):
        with pytest.raises(ConfigError, match="is not an address of this machine") as caught:
            VoteServer(Storage(), server.box, host=host, port=0)
        assert caught.value.field == "host"
