"""What the runs of one output share: trees, the order of commits, and a store that keeps its word."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from stylemill.errors import ConfigError, StorageError
from stylemill.manifest.output import check_conditional_create, claim_tree, next_sequence, release_trees
from stylemill.manifest.read import load_history, newest_rows
from stylemill.storage import Storage, join
from stylemill.storage.local import LocalStore
from tests.committed import commit_run


@pytest.fixture
def storage() -> Storage:
    return Storage()


@pytest.fixture
def out(tmp_path: Path) -> str:
    return str(tmp_path / "out")


def test_the_first_lineage_gets_the_name_of_the_style_for_ever(storage: Storage, out: str):
    lineages = ["a" * 64, "b" * 64, "a" * 64, "b" * 64]
    trees = [claim_tree(storage, out, "waves", lineage, "/in") for lineage in lineages]
    assert trees == ["waves", "waves~bbbbbbbb", "waves", "waves~bbbbbbbb"]
    assert claim_tree(storage, out, "dunes", "b" * 64, "/in") == "dunes"


def test_of_many_lineages_at_once_one_gets_the_name(out: str):
    lineages = [f"{number:064x}"[::-1] for number in range(16)]
    with ThreadPoolExecutor(16) as pool:
        trees = list(pool.map(lambda lineage: claim_tree(Storage(), out, "waves", lineage, "/in"), lineages))
    assert trees.count("waves") == 1 and len(set(trees)) == 16


def test_a_damaged_claim_stops_the_run(storage: Storage, out: str):
    storage.write_bytes(join(out, "state", "trees", "waves.json"), b"{}")
    with pytest.raises(StorageError, match="damaged"):
        claim_tree(storage, out, "waves", "a" * 64, "/in")


def test_only_unused_trees_are_released(storage: Storage, out: str):
    for style in ("waves", "dunes"):
        claim_tree(storage, out, style, "a" * 64, "/in")
    release_trees(storage, out, {"dunes"})
    assert [claim_tree(storage, out, style, "b" * 64, "/in") for style in ("waves", "dunes")] == [
        "waves",
        "dunes~bbbbbbbb",
    ]


def test_numbers_of_commits_are_distinct_and_rise(storage: Storage, out: str):
    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(lambda run: next_sequence(Storage(), out, f"r{run}"), range(24)))
    assert sorted(numbers) == list(range(1, 25))
    assert next_sequence(storage, out, "r1") == 25


@pytest.mark.parametrize("clock", ["2026-03-01T00:00:00+00:00", "2026-02-28T23:00:00+00:00"])
def test_the_newest_row_is_that_of_the_last_commit_whatever_the_clocks_say(storage: Storage, out: str, clock: str):
    commit_run(storage, out, "first", [["a.jpg"]], failed=["a.jpg"], sequence=1)
    commit_run(storage, out, "retry", [["a.jpg"]], finished_at=clock, sequence=2)
    history = load_history(storage, out)
    assert [run.layout.run_id for run in history] == ["first", "retry"]
    ((_, (newest,)),) = newest_rows(storage, history, ["waves"])
    assert newest["status"] == "ok"


def test_runs_of_early_versions_are_older_than_numbered_ones(storage: Storage, out: str):
    commit_run(storage, out, "numbered", [["a.jpg"]], finished_at="2026-01-01T00:00:00+00:00", sequence=1)
    commit_run(storage, out, "early-2", [["a.jpg"]], finished_at="2026-03-02T00:00:00+00:00")
    commit_run(storage, out, "early-1", [["a.jpg"]], finished_at="2026-03-01T00:00:00+00:00")
    assert [run.layout.run_id for run in load_history(storage, out)] == ["early-1", "early-2", "numbered"]


def test_a_store_that_creates_once_is_accepted_and_left_clean(storage: Storage, tmp_path: Path):
    check_conditional_create(storage, str(tmp_path))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_store_that_ignores_the_condition_is_refused(storage: Storage, out: str, monkeypatch: pytest.MonkeyPatch):
    write: Callable[..., None] = LocalStore.write

    def create(self: LocalStore, path: str, data: bytes, *, durable: bool = True) -> bool:
        write(self, path, data, durable=durable)
        return True

    monkeypatch.setattr(LocalStore, "create", create)
    with pytest.raises(ConfigError, match="If-None-Match") as caught:
        check_conditional_create(storage, out)
    assert caught.value.field == "out"
