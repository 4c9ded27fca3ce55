"""The registry over the real S3 protocol: its compare-and-swap is the store's conditional put."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from stylemill.errors import RunConflict
from stylemill.registry import Registry, locate_model
from stylemill.storage import Storage, StorageOptions
from stylemill.style_model import load_style_model, to_bytes
from tests.drawn import style_model

NUM_FIRINGS = 6


def test_of_racing_firings_exactly_one_promotes(s3_bucket: str):
    storage = Storage(StorageOptions())
    root = f"{s3_bucket}/styles"
    registry = Registry.create(storage, root)
    for number in range(NUM_FIRINGS + 1):
        data = to_bytes(replace(style_model(seed=number), version=f"v{number}"))
        registry.add(data, source_uri=f"/trained/{number}")
    registry.promote("waves", "v0", reason="the first", over=None)
    barrier = threading.Barrier(NUM_FIRINGS)
    winners: list[str] = []
    losers: list[str] = []

    def fire(version: str) -> None:
        mine = Registry.open(Storage(StorageOptions()), root)
        barrier.wait()
        try:
            winners.append(mine.promote("waves", version, reason="better", over=1).version)
        except RunConflict as error:
            losers.append(str(error))

    threads = [threading.Thread(target=fire, args=(f"v{number}",)) for number in range(1, NUM_FIRINGS + 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = winners
    assert len(losers) == NUM_FIRINGS - 1 and all(f"is {winner}" in said for said in losers)
    assert [promotion.version for promotion in registry.history("waves")] == ["v0", winner]
    located = locate_model(storage, "registry:waves", root)
    assert load_style_model(storage, located).version == winner
    assert registry.rollback("waves", reason="as it was").version == "v0"
    with pytest.raises(RunConflict, match="rolled_back"):
        registry.promote("waves", winner, reason="decided before the rollback", over=2)
