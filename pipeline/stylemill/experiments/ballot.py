"""Votes of people on pairs of pictures: the questions, the box that stores the answers, and reading them back.

A question shows one image by two models without their names. Order and sides are random for each voter and do not
change. Every vote is one row in a separate Parquet file below ``OUT/votes``.
"""

from __future__ import annotations

import hashlib
import math
import re
import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import combinations
from typing import Any, Final

import pyarrow as pa

from stylemill.errors import ConfigError
from stylemill.manifest.schema import from_parquet, make_table, to_parquet
from stylemill.storage import Storage, join, resolve
from stylemill.storage.sources import draw_sample

VOTE_SCHEMA: Final = pa.schema(
    [
        pa.field("voter", pa.string(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("model_a", pa.string(), nullable=False),
        pa.field("model_b", pa.string(), nullable=False),
        pa.field("preferred", pa.string()),
        pa.field("left", pa.string(), nullable=False),
        pa.field("seconds", pa.float64(), nullable=False),
        pa.field("voted_at", pa.timestamp("us", tz="UTC"), nullable=False),
    ]
)
"""``model_a`` sorts before ``model_b``; ``preferred`` is one of them, null for a tie; ``left`` was on the left."""

VOTER_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,39}", re.ASCII)
LEFT, RIGHT, TIE = "left", "right", "tie"

Row = Mapping[str, Any]


def read_votes(storage: Storage, locations: Sequence[str]) -> list[dict[str, Any]]:
    """Return the votes in OUT/votes of each location.

    Raises:
        ConfigError: a location has no votes, or a file with other content.
        StorageError: storage failed beyond its retries.
    """
    votes = []
    for location in locations:
        prefix = join(resolve(location), "votes")
        files = [item for item in storage.list_objects(prefix) if item.key.endswith(".parquet")]
        if not files:
            raise ConfigError("votes", location, "holds no votes", "give the OUT of `stylemill vote`")
        for item in files:
            votes += _read_file(storage, item.uri, field="votes")
    return votes


def _read_file(storage: Storage, uri: str, *, field: str) -> list[dict[str, Any]]:
    try:
        return list(from_parquet(storage.read_bytes(uri), VOTE_SCHEMA).to_pylist())
    except ValueError as error:
        raise ConfigError(field, uri, f"is not a file of votes ({error})", "remove it") from None


def check_votes(votes: Iterable[Row], evaluation_rows: Iterable[Row]) -> None:
    """Check that every vote is about pictures of the evaluation and is given once.

    Raises:
        ConfigError: the message names the first vote that is not.
    """
    known = {(row["key"], row["model"]) for row in evaluation_rows if row["status"] == "ok"}
    seen = set()
    for vote in votes:
        pair = (vote["model_a"], vote["model_b"])
        if any((vote["key"], model) not in known for model in pair):
            what = f"{vote['voter']} about {vote['key']} by {' and '.join(pair)}"
            cure = "give the evaluation of the votes, or leave these votes out"
            raise ConfigError("votes", what, "is a vote on pictures that are not in the evaluation", cure)
        if vote["preferred"] not in (*pair, None):
            raise ConfigError("votes", vote["preferred"], f"is preferred but not one of {pair}", "correct the file")
        identity = (vote["voter"], vote["key"], *pair)
        if identity in seen:
            what = f"{vote['voter']} about {vote['key']} by {' and '.join(pair)}"
            raise ConfigError("votes", what, "is a vote that is given twice", "give each OUT of votes once")
        seen.add(identity)


def count_images(votes: Iterable[Row], champion: str, candidate: str) -> tuple[int, int, int, int]:
    """Return (wins, losses, ties, votes): images with a majority for the candidate, for the champion, or for neither.

    Votes of several people on one image are not independent, so the image is the unit and its majority counts.
    """
    balance: dict[str, int] = defaultdict(int)
    num_votes = 0
    for vote in votes:
        if {vote["model_a"], vote["model_b"]} == {champion, candidate}:
            num_votes += 1
            balance[vote["key"]] += (vote["preferred"] == candidate) - (vote["preferred"] == champion)
    signs = list(balance.values())
    return (
        sum(sign > 0 for sign in signs),
        sum(sign < 0 for sign in signs),
        sum(sign == 0 for sign in signs),
        num_votes,
    )


class VoteError(Exception):
    """A vote is refused; the stored votes do not change.

    Args:
        status: HTTP status.
        message: text for the voter.
    """

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


@dataclass(frozen=True, kw_only=True)
class Question:
    """One image by two models."""

    identity: str
    """Hash that reveals neither image nor models."""
    key: str
    model_a: str
    model_b: str
    pictures: Mapping[str, str]
    """Location of the picture by model."""
    source: str
    """Location of the original."""


def make_questions(
    table: pa.Table, *, models: Sequence[str] = (), num_images: int = 0, seed: int = 0
) -> dict[str, Question]:
    """Return the questions by identity: one for each image and each pair of models that painted it.

    Args:
        table: rows of EVALUATION_SCHEMA.
        models: models to ask about; empty takes all.
        num_images: number of images to draw; 0 takes all.
        seed: seed of the draw.

    Raises:
        ConfigError: a model is unknown, or no image was painted by two models.
    """
    rows = [row for row in table.to_pylist() if row["status"] == "ok"]
    for model in models:
        if model not in {row["model"] for row in rows}:
            known = ", ".join(dict.fromkeys(row["model"] for row in rows))
            raise ConfigError("model", model, "was not measured", f"use two or more of {known}")
    painted: dict[str, dict[str, dict[str, Any]]] = {}
    for row in rows:
        if not models or row["model"] in models:
            painted.setdefault(row["key"], {})[row["model"]] = row
    votable = [key for key, by_model in painted.items() if len(by_model) > 1]
    if not votable:
        cure = "evaluate two models on the same images: --model A --model B"
        raise ConfigError(
            "evaluation", list(dict.fromkeys(row["model"] for row in rows)), "has no image by two models", cure
        )
    questions = {}
    for key in draw_sample(votable, num_images, seed=seed):
        for model_a, model_b in combinations(sorted(painted[key]), 2):
            identity = hashlib.sha256(f"{key}\0{model_a}\0{model_b}".encode()).hexdigest()[:24]
            questions[identity] = Question(
                identity=identity,
                key=key,
                model_a=model_a,
                model_b=model_b,
                pictures={model: painted[key][model]["picture_uri"] for model in (model_a, model_b)},
                source=painted[key][model_a]["source_picture_uri"],
            )
    return questions


class BallotBox:
    """Accepts votes and stores them. Safe for threads, and for several processes with the same output.

    Each vote is a Parquet file that is created, never replaced, so no vote can be lost or given twice.

    Args:
        storage: storage of the votes.
        out: output location; votes are stored in OUT/votes.
        questions: questions by identity.
        seed: seed of order and sides.

    Raises:
        ConfigError: a file in OUT/votes is not a file of votes.
        StorageError: storage failed beyond its retries.
    """

    def __init__(self, storage: Storage, out: str, questions: Mapping[str, Question], *, seed: int = 0) -> None:
        self.questions = questions
        self._storage, self._prefix, self._seed = storage, join(out, "votes"), seed
        self._lock = threading.Lock()
        self._votes: dict[str, list[dict[str, Any]]] = {}
        for item in storage.list_objects(self._prefix):
            if not item.key.endswith(".parquet"):
                continue
            for row in _read_file(storage, item.uri, field="out"):
                self._votes.setdefault(row["voter"], []).append(row)

    @property
    def num_votes(self) -> dict[str, int]:
        """Number of votes by voter."""
        with self._lock:
            return {voter: len(rows) for voter, rows in self._votes.items()}

    def next_question(self, voter: str) -> tuple[Question | None, int]:
        """Return a voter's next question (None at the end) and the number of answered questions.

        Raises:
            VoteError: the name of the voter is not allowed.
        """
        check_voter(voter)
        with self._lock:
            answered = {_identity(row) for row in self._votes.get(voter, ())}
        open_questions = [one for one in self.questions.values() if (one.key, one.model_a, one.model_b) not in answered]
        following = min(open_questions, key=lambda one: self._hash(voter, one.identity, "order"), default=None)
        return following, len(self.questions) - len(open_questions)

    def sides(self, voter: str, question: Question) -> tuple[str, str]:
        """Return the models on the left and on the right: fixed for a voter and question, random between voters."""
        pair = (question.model_a, question.model_b)
        return pair if self._hash(voter, question.identity, "side")[0] % 2 else (pair[1], pair[0])

    def cast(self, voter: str, identity: str, choice: str, seconds: float) -> None:
        """Store one vote; it is written when this method returns.

        Raises:
            VoteError: the question or the choice is unknown, or this voter has already answered the question.
            StorageError: the vote could not be written and does not count.
        """
        check_voter(voter)
        question = self.questions.get(identity)
        if question is None:
            raise VoteError(404, "this question is not on the ballot; reload the page")
        if choice not in (LEFT, RIGHT, TIE):
            raise VoteError(400, f"unknown choice {choice!r}; choose left, right or tie")
        left, right = self.sides(voter, question)
        row = {
            "voter": voter,
            "key": question.key,
            "model_a": question.model_a,
            "model_b": question.model_b,
            "preferred": {LEFT: left, RIGHT: right, TIE: None}[choice],
            "left": left,
            "seconds": seconds if math.isfinite(seconds) else 0.0,
            "voted_at": datetime.now(UTC),
        }
        with self._lock:
            kept = self._votes.setdefault(voter, [])
            uri = join(self._prefix, voter, f"{identity}.parquet")
            was_answered = _identity(row) in map(_identity, kept)
            if not was_answered:
                was_answered = not self._storage.create_bytes(uri, to_parquet(make_table([row], VOTE_SCHEMA)))
                kept.append(row)  # also if another process stored it: only the identity of the question matters here
            if was_answered:
                raise VoteError(409, "you have already answered this question; the first answer counts")

    def _hash(self, *parts: str) -> bytes:
        return hashlib.sha256("\0".join((str(self._seed), *parts)).encode()).digest()


def check_voter(voter: str) -> None:
    """Raise VoteError unless a text can be the name of a voter and of a file."""
    if not VOTER_NAME.fullmatch(voter):
        message = "a name has 1 to 40 letters, digits, dots, dashes or underscores and begins with a letter or a digit"
        raise VoteError(400, message)


def _identity(row: Mapping[str, Any]) -> tuple[str, str, str]:
    return row["key"], row["model_a"], row["model_b"]
