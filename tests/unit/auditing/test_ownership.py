"""Garbage: objects that no committed run owns."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from stylemill.auditing.ownership import delete_garbage, find_garbage
from stylemill.cli.manifest import main
from stylemill.errors import ConfigError, RunConflict, StorageError
from stylemill.manifest.commit import write_shard
from stylemill.manifest.layout import RunLayout
from stylemill.manifest.output import claim_tree, cleaning_lease_uri
from stylemill.manifest.schema import PLAN_SCHEMA, make_table
from stylemill.storage import ObjectStat, Storage, join
from stylemill.storage.lease import DEAD_AFTER_S, acquire, settle
from stylemill.storage.local import TEMPORARY_PREFIX
from stylemill.stylizing.identity import RunIdentity, StyleRef
from tests.committed import commit_run, planned


def test_a_sound_output_holds_no_garbage(tmp_path: Path):
    commit_run(Storage(), str(tmp_path))
    assert find_garbage(Storage(), str(tmp_path)).objects == ()


def test_unknown_objects_and_leftovers_of_dead_writers_are_removed(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    layout = commit_run(Storage(), str(tmp_path))
    images = Path(layout.images_uri("waves"))
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    stray, dead, living = (images / name for name in ("stray.jpg", f"{TEMPORARY_PREFIX}1", f"{TEMPORARY_PREFIX}2"))
    for path in (stray, dead, living):
        path.write_bytes(b"half")
    os.utime(dead, (0, 0))
    assert main(["gc", str(tmp_path)]) == 0
    assert "stray.jpg" in capsys.readouterr().out
    assert stray.exists() and dead.exists()
    assert main(["gc", str(tmp_path), "--delete"]) == 0
    (lease,) = (tmp_path / "state" / "cleaning").iterdir()
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == before | {living, lease}


def test_a_folder_of_images_that_no_run_made_is_left_alone(tmp_path: Path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "logo.png").write_bytes(b"mine")
    (tmp_path / "runs" / "marathon").mkdir(parents=True)
    (tmp_path / "runs" / "marathon" / "notes.txt").write_bytes(b"mine")
    for out in (tmp_path, tmp_path / "nowhere", tmp_path / "images" / "logo.png"):
        with pytest.raises(ConfigError, match="contains no run"):
            main(["gc", str(out), "--delete"])
    assert (tmp_path / "images" / "logo.png").exists()


def start_run(out: Path, run_id: str, keys: list[str]) -> RunLayout:
    """Begin a run that plans these sources; without any it has nothing to do."""
    layout = RunLayout(out=str(out), run_id=run_id)
    style = StyleRef(name="waves", version="1", model_sha256="ab", fingerprint="f", tree="waves~12345678")
    identity = RunIdentity(run_id=run_id, input="/in", fingerprint="f", styles=(style,), settings={})
    Storage().write_bytes(layout.identity_uri, identity.to_json())
    if keys:
        write_shard(Storage(), layout, 0, make_table([planned(key) for key in keys], PLAN_SCHEMA))
    return layout


def test_a_run_that_may_own_images_is_unfinished_and_one_without_a_plan_is_not(tmp_path: Path):
    commit_run(Storage(), str(tmp_path))
    start_run(tmp_path, "empty", [])
    assert find_garbage(Storage(), str(tmp_path)).unfinished_runs == ()
    with acquire(Storage(), start_run(tmp_path, "beginning", []).lease_uri):
        assert find_garbage(Storage(), str(tmp_path)).unfinished_runs == ("beginning",)
    start_run(tmp_path, "killed", ["e.jpg"])
    assert find_garbage(Storage(), str(tmp_path)).unfinished_runs == ("killed",)


def test_nothing_is_deleted_while_a_run_is_unfinished(tmp_path: Path):
    commit_run(Storage(), str(tmp_path))
    stray = tmp_path / "images" / "waves" / "stray.jpg"
    stray.write_bytes(b"of a run")
    start_run(tmp_path, "killed", ["stray.jpg"])
    with pytest.raises(ConfigError, match="killed"):
        main(["gc", str(tmp_path), "--delete"])
    assert stray.exists()


def test_no_run_begins_while_the_output_is_cleaned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("stylemill.storage.lease.RENEW_PERIOD_S", 0.05)
    commit_run(Storage(), str(tmp_path))
    (tmp_path / "images" / "waves" / "stray.jpg").write_bytes(b"stray")
    deleted: list[str] = []

    def begin(found: ObjectStat) -> None:
        deleted.append(found.key)
        with pytest.raises(RunConflict, match="the output is held"):
            settle(Storage(), cleaning_lease_uri(str(tmp_path)), what="the output")

    delete_garbage(Storage(), str(tmp_path), begin)
    assert deleted == ["waves/stray.jpg"]
    settle(Storage(), cleaning_lease_uri(str(tmp_path)), what="the output")


def test_a_cleaner_that_was_taken_for_dead_deletes_nothing_more(tmp_path: Path):
    commit_run(Storage(), str(tmp_path))
    strays = [tmp_path / "images" / "waves" / f"stray-{number}.jpg" for number in range(3)]
    for path in strays:
        path.write_bytes(b"stray")

    def take_over(_: ObjectStat) -> None:
        Storage().create_bytes(join(cleaning_lease_uri(str(tmp_path)), "00000002.json"), lease_object(tmp_path))

    with pytest.raises(RunConflict, match="taken over"):
        delete_garbage(Storage(), str(tmp_path), take_over)
    assert [path.exists() for path in strays] == [False, True, True]


def lease_object(out: Path) -> bytes:
    """Return the content of the first cleaning lease."""
    return Storage().read_bytes(join(cleaning_lease_uri(str(out)), "00000001.json"))


def test_an_object_that_was_written_since_it_was_listed_stays(tmp_path: Path):
    commit_run(Storage(), str(tmp_path))
    strays = [tmp_path / "images" / "waves" / name for name in ("stray-1.jpg", "stray-2.jpg")]
    for path in strays:
        path.write_bytes(b"stray")

    delete_garbage(Storage(), str(tmp_path), lambda _: strays[1].write_bytes(b"somebody's by now"))
    assert [path.exists() for path in strays] == [False, True]


def test_another_spelling_of_an_owned_name_is_not_garbage(tmp_path: Path):
    layout = commit_run(Storage(), str(tmp_path), shards=[["E\u0301toile.JPG"]])
    images = Path(layout.images_uri("waves"))
    (images / "E\u0301toile.JPG").rename(images / "\u00e9toile.jpg")  # as a file system that folds both lists it
    (images / "etoile.jpg").write_bytes(b"another name")
    assert [found.key for found in find_garbage(Storage(), str(tmp_path)).objects] == ["waves/etoile.jpg"]


def test_the_folder_of_a_run_that_was_removed_is_free_again(tmp_path: Path):
    commit_run(Storage(), str(tmp_path), styles=["dunes"])
    for style in ("waves", "dunes"):
        claim_tree(Storage(), str(tmp_path), style, "a" * 64, "/in")
    delete_garbage(Storage(), str(tmp_path), lambda _: None)
    trees = [claim_tree(Storage(), str(tmp_path), style, "b" * 64, "/in") for style in ("waves", "dunes")]
    assert trees == ["waves", "dunes~bbbbbbbb"]


def test_the_folder_of_a_run_that_is_prepared_stays_claimed(tmp_path: Path):
    commit_run(Storage(), str(tmp_path), styles=["dunes"])
    claim_tree(Storage(), str(tmp_path), "waves~12345678", "a" * 64, "/in")
    start_run(tmp_path, "prepared", [])
    delete_garbage(Storage(), str(tmp_path), lambda _: None)
    assert claim_tree(Storage(), str(tmp_path), "waves~12345678", "b" * 64, "/in") != "waves~12345678"


def test_requests_of_a_cleaner_end_before_it_counts_as_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Otherwise a run that took over could use an object that a request of the cleaner then deletes."""
    commit_run(Storage(), str(tmp_path))
    (tmp_path / "images" / "waves" / "stray.jpg").write_bytes(b"stray")
    used, delete = [], Storage.delete

    def watched(self: Storage, uri: str) -> None:
        used.append(self.options)
        delete(self, uri)

    monkeypatch.setattr(Storage, "delete", watched)
    delete_garbage(Storage(), str(tmp_path), lambda _: None)
    (options,) = used
    whole_request_s = 4 * options.timeout_s  # see S3Store
    assert options.retry_deadline_s + whole_request_s < DEAD_AFTER_S


def test_a_damaged_identity_stops_the_cleaner(tmp_path: Path):
    commit_run(Storage(), str(tmp_path))
    Storage().write_bytes(start_run(tmp_path, "damaged", []).identity_uri, b"{}")
    with pytest.raises(StorageError, match=r"damaged/run\.json"):
        delete_garbage(Storage(), str(tmp_path), lambda _: None)
