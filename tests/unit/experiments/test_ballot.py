"""Ballots: questions, their order and sides, and votes that are neither lost nor counted twice."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path

import pytest

from stylemill.errors import ConfigError
from stylemill.experiments.ballot import BallotBox, VoteError, check_votes, make_questions, read_votes
from stylemill.experiments.ranking import rank
from stylemill.storage import Storage
from tests.unit.experiments.tables import measured_pictures


def test_sides_and_order_are_random_between_voters_and_steady_for_each(tmp_path: Path):
    box = BallotBox(Storage(), str(tmp_path / "out"), make_questions(measured_pictures(tmp_path, 40)))
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
    check_votes(votes, measured_pictures(tmp_path).to_pylist())
    reopened = BallotBox(Storage(), str(tmp_path / "out"), box.questions)
    assert reopened.next_question("ann") == (None, 4)


def test_a_second_vote_is_refused_also_from_another_process_and_the_first_stands(box: BallotBox, tmp_path: Path):
    other = BallotBox(Storage(), str(tmp_path / "out"), box.questions)
    question = next(iter(box.questions.values()))
    box.cast("ann", question.identity, "left", 1.0)
    for late in (box, other):
        with pytest.raises(VoteError, match="the first answer counts"):
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
    table = measured_pictures(tmp_path, 2, ("a-1", "b-1", "c-1"))
    assert len(make_questions(table)) == 6
    assert len(make_questions(table, models=("a-1", "c-1"))) == 2
    with pytest.raises(ConfigError, match="was not measured; use two or more of a-1, b-1, c-1"):
        make_questions(table, models=("a-1", "x"))
    with pytest.raises(ConfigError, match="has no image by two models"):
        make_questions(measured_pictures(tmp_path, 2, ("a-1",)))
