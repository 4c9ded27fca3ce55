from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stylemill.errors import ConfigError
from stylemill.evaluation.schema import EVALUATION_SCHEMA
from stylemill.experiments.ballot import BallotBox, VoteError, check_votes, make_questions, read_votes
from stylemill.experiments.ranking import rank
from stylemill.experiments.vote_server import VoteServer
from stylemill.manifest.schema import make_table
from stylemill.storage import Storage
from tests.drawn import image_bytes

MODELS = ("dunes-1", "waves-1")


def measured(folder: Path, num: int = 4, models: tuple[str, ...] = MODELS) -> Any:
    rows = []
    for number in range(num):
        for seed, model in enumerate(models):
            picture = folder / f"{model}-{number}.png"
            picture.write_bytes(image_bytes(64, 80, seed=seed * 10 + number, format="PNG"))
            rows.append(
                {"model": model, "model_sha256": "0", "key": f"{number}.jpg", "uri": "u", "stratum": "", "judge": "j"}
                | {
                    "status": "ok",
                    "picture_uri": str(picture),
                    "source_picture_uri": str(folder / f"{models[0]}-0.png"),
                }
            )
    return make_table(rows, EVALUATION_SCHEMA)


@pytest.fixture
def box(tmp_path: Path) -> BallotBox:
    return BallotBox(Storage(), str(tmp_path / "out"), make_questions(measured(tmp_path)))


def test_sides_and_order_are_random_between_voters_and_steady_for_each(tmp_path: Path):
    box = BallotBox(Storage(), str(tmp_path / "out"), make_questions(measured(tmp_path, 40)))
    lefts = Counter(box.sides(f"voter{n}", one)[0] for n in range(10) for one in box.questions.values())
    assert lefts["dunes-1"] == pytest.approx(200, abs=40)
    orders = set()
    for voter in ("ann", "bob", "cleo"):
        first, _ = box.next_question(voter)
        again, _ = box.next_question(voter)
        assert first is not None and again == first
        orders.add(first.identity)
    assert len(orders) > 1


def test_what_was_chosen_is_what_stands_in_the_table(box: BallotBox, tmp_path: Path):
    wanted = {}
    for choice in ("left", "right", "tie", "left"):
        question, _ = box.next_question("ann")
        assert question is not None
        left, right = box.sides("ann", question)
        wanted[question.key] = {"left": left, "right": right, "tie": None}[choice]
        box.cast("ann", question.identity, choice, 1.5)
    assert box.next_question("ann") == (None, 4) and box.next_question("bob")[1] == 0
    votes = read_votes(Storage(), [str(tmp_path / "out")])
    assert {vote["key"]: vote["preferred"] for vote in votes} == wanted
    check_votes(votes, measured(tmp_path).to_pylist())
    reopened = BallotBox(Storage(), str(tmp_path / "out"), box.questions)
    assert reopened.next_question("ann") == (None, 4)


def test_a_second_vote_is_refused_also_from_another_process_and_the_first_stands(box: BallotBox, tmp_path: Path):
    other = BallotBox(Storage(), str(tmp_path / "out"), box.questions)
    question = next(iter(box.questions.values()))
    box.cast("ann", question.identity, "left", 1.0)
    for late in (box, other):
        with pytest.raises(VoteError, match="the first answer stands"):
            late.cast("ann", question.identity, "right", 1.0)
    (vote,) = read_votes(Storage(), [str(tmp_path / "out")])
    assert vote["preferred"] == vote["left"]
    assert other.next_question("ann")[1] == 1


def test_many_voters_at_once_lose_nothing(box: BallotBox, tmp_path: Path):
    def answer_all(voter: str) -> None:
        while (question := box.next_question(voter)[0]) is not None:
            box.cast(voter, question.identity, "left", 0.1)

    threads = [threading.Thread(target=answer_all, args=(f"voter{number}",)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    votes = read_votes(Storage(), [str(tmp_path / "out")])
    assert Counter(vote["voter"] for vote in votes) == {f"voter{number}": 4 for number in range(6)}
    ranking = rank(votes)
    assert ranking.num_voters == 6 and ranking.agreement is not None


def test_three_models_make_three_questions_of_an_image(tmp_path: Path):
    table = measured(tmp_path, 2, ("a-1", "b-1", "c-1"))
    assert len(make_questions(table)) == 6
    assert len(make_questions(table, models=("a-1", "c-1"))) == 2
    with pytest.raises(ConfigError, match="was not measured; use some of a-1, b-1, c-1"):
        make_questions(table, models=("a-1", "x"))
    with pytest.raises(ConfigError, match="holds no image by two models"):
        make_questions(measured(tmp_path, 2, ("a-1",)))


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
    assert status == 409 and b"the first answer stands" in again
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
    with pytest.raises(ConfigError, match="cannot be listened on"):
        VoteServer(Storage(), server.box, host="127.0.0.1", port=server.server_address[1])


def test_an_address_of_another_machine_is_said(server: VoteServer):
    for host in ("256.1.1.1", "192.0.2.1"):
        with pytest.raises(ConfigError, match="is no address of this machine") as caught:
            VoteServer(Storage(), server.box, host=host, port=0)
        assert caught.value.field == "host"
