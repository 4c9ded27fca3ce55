"""Votes: one row per voter, image and pair of models."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import pyarrow as pa

from pipeline.errors import ConfigError
from pipeline.manifest.schema import from_parquet
from pipeline.storage import Storage, join, resolve

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
"""``model_a`` sorts before ``model_b``; ``preferred`` is one of them, null for a tie; ``left`` stood on the left."""

Row = Mapping[str, Any]


def read_votes(storage: Storage, locations: Sequence[str]) -> list[dict[str, Any]]:
    """Return the votes in OUT/votes of each location.

    Raises:
        ConfigError: there are none, or a file that holds something else.
        StorageError: storage failed beyond its retries.
    """
    votes = []
    for location in locations:
        prefix = join(resolve(location), "votes")
        files = [item for item in storage.list_objects(prefix) if item.key.endswith(".parquet")]
        if not files:
            raise ConfigError("votes", location, "holds no votes", "give the OUT of `stylemill vote`")
        for item in files:
            try:
                votes += from_parquet(storage.read_bytes(item.uri), VOTE_SCHEMA).to_pylist()
            except ValueError as error:
                raise ConfigError("votes", item.uri, f"is no file of votes ({error})", "remove it") from None
    return votes


def check_votes(votes: Iterable[Row], evaluation_rows: Iterable[Row]) -> None:
    """Refuse votes about pictures that the evaluation does not hold, and votes given twice.

    Raises:
        ConfigError: names the first such vote.
    """
    known = {(row["key"], row["model"]) for row in evaluation_rows if row["status"] == "ok"}
    seen = set()
    for vote in votes:
        pair = (vote["model_a"], vote["model_b"])
        if any((vote["key"], model) not in known for model in pair):
            what = f"{vote['voter']} about {vote['key']} by {' and '.join(pair)}"
            cure = "give the evaluation that the votes were about, or leave these votes out"
            raise ConfigError("votes", what, "is a vote on pictures that the evaluation does not hold", cure)
        if vote["preferred"] not in (*pair, None):
            raise ConfigError("votes", vote["preferred"], f"is preferred but not one of {pair}", "correct the file")
        identity = (vote["voter"], vote["key"], *pair)
        if identity in seen:
            what = f"{vote['voter']} about {vote['key']} by {' and '.join(pair)}"
            raise ConfigError("votes", what, "is a vote that stands there twice", "give each OUT of votes once")
        seen.add(identity)


def count_images(votes: Iterable[Row], champion: str, candidate: str) -> tuple[int, int, int, int]:
    """Return (wins, losses, ties, votes): images on which the votes lean to the candidate, the champion, neither.

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
