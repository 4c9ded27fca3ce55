"""Publishing: the manifest parts of complete shards, in the order of the plan and under the lease."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from stylemill.errors import RunConflict, StorageError
from stylemill.manifest.commit import write_shard
from stylemill.manifest.layout import RunLayout
from stylemill.manifest.schema import PLAN_SCHEMA, make_table
from stylemill.storage import Storage
from stylemill.storage.lease import HeldLease, acquire
from stylemill.stylizing.run import Publisher
from tests.committed import paint, planned, row

NUM_SHARDS = 20
KEYS = {shard: [f"{shard:02d}/{letter}" for letter in "abc"] for shard in range(NUM_SHARDS)}


@pytest.fixture
def storage() -> Storage:
    return Storage()


@pytest.fixture
def layout(storage: Storage, tmp_path: Path) -> RunLayout:
    layout = RunLayout(out=str(tmp_path), run_id="r1")
    for shard, keys in KEYS.items():
        write_shard(storage, layout, shard, make_table([planned(key) for key in keys], PLAN_SCHEMA))
    return layout


@pytest.fixture
def lease(storage: Storage, layout: RunLayout) -> Iterator[HeldLease]:
    with acquire(storage, layout.lease_uri) as held:
        yield held


@pytest.fixture
def publisher(storage: Storage, layout: RunLayout, lease: HeldLease) -> Iterator[Publisher]:
    publisher = Publisher(storage, layout, ["waves"], lease)
    yield publisher
    publisher.stop()


def paint_keys(storage: Storage, layout: RunLayout, shard: int, keys: list[str]) -> None:
    paint(storage, layout, shard, [row(layout, key, "waves") for key in keys])


def test_every_shard_gets_its_part_in_the_order_of_the_plan(storage: Storage, layout: RunLayout, publisher: Publisher):
    missing = publisher.missing(reversed(range(NUM_SHARDS)))
    assert {shard: table["key"].to_pylist() for shard, table in missing.items()} == KEYS
    for shard in missing:
        paint_keys(storage, layout, shard, KEYS[shard])
    publisher.publish(missing)
    assert publisher.wait() == []
    assert [part.name for part in publisher.parts] == [layout.part_name(shard) for shard in range(NUM_SHARDS)]
    assert publisher.missing(range(NUM_SHARDS)) == {}


def test_a_shard_that_lacks_rows_is_reported_and_has_no_part(storage: Storage, layout: RunLayout, publisher: Publisher):
    paint_keys(storage, layout, 0, KEYS[0])
    paint_keys(storage, layout, 1, KEYS[1][:2])
    publisher.publish([0, 1])
    assert publisher.wait() == [1]
    assert [part.name for part in publisher.parts] == [layout.part_name(0)]
    assert publisher.missing([0, 1])[1]["key"].to_pylist() == KEYS[1][2:]
    paint_keys(storage, layout, 1, KEYS[1][2:])
    publisher.publish([1])
    assert publisher.wait() == [] and len(publisher.parts) == 2


def test_parts_of_an_earlier_invocation_are_kept(
    storage: Storage, layout: RunLayout, publisher: Publisher, lease: HeldLease
):
    paint_keys(storage, layout, 3, KEYS[3])
    publisher.publish([3])
    assert publisher.wait() == []
    later = Publisher(storage, layout, ["waves"], lease)
    assert set(later.missing([3, 4])) == {4}
    assert later.parts == publisher.parts
    later.stop()


def test_nothing_is_published_under_a_lost_lease(storage: Storage, layout: RunLayout, publisher: Publisher):
    paint_keys(storage, layout, 0, KEYS[0])
    with acquire(storage, layout.lease_uri, dead_after_s=0.0):
        publisher.publish([0])
        with pytest.raises(RunConflict):
            publisher.wait()
    assert not storage.exists(layout.part_uri(0))


def test_damage_found_in_a_thread_is_raised(storage: Storage, layout: RunLayout, publisher: Publisher):
    paint_keys(storage, layout, 0, [*KEYS[0], "unknown"])
    publisher.publish([0])
    with pytest.raises(StorageError, match="rows that are not in the plan"):
        publisher.wait()
