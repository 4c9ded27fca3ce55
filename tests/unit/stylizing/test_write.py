"""One row for each source and style, and results whose names collide."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stylemill.storage import ObjectStat, hosts
from stylemill.storage.local import LocalStore
from stylemill.stylizing.preflight import PreparedRun
from tests.drawn import image_bytes
from tests.unit.stylizing.conftest import errors
from tests.web import dead_url, web_server


def test_a_source_becomes_one_row_for_each_style(run: PreparedRun, paint: Callable):
    rows = paint()
    assert sorted(rows) == [("a.jpg", "dunes"), ("a.jpg", "waves")]
    digests = set()
    for (key, style), row in rows.items():
        data = Path(run.layout.images_uri(style), key).read_bytes()
        assert row["output_sha256"] == hashlib.sha256(data).hexdigest()
        assert row["source_sha256"] == hashlib.sha256(image_bytes(20, 30)).hexdigest()
        assert (row["status"], row["width_px"], row["height_px"]) == ("ok", 30, 20)
        digests.add(row["output_sha256"])
    assert len(digests) == 2, "both styles look the same"


def test_what_cannot_be_read_is_no_twin(run: PreparedRun, paint: Callable, tmp_path: Path):
    folder = Path(run.identity.input)
    os.mkfifo(folder / "pipe")
    (folder / "album").symlink_to(tmp_path)
    (folder / "lost").symlink_to("nowhere")
    for name in ("pipe.jpg", "album.jpg", "lost.jpg"):
        (folder / name).write_bytes(image_bytes(20, 20))
    found = errors(paint())
    assert {name: found[name] for name in ("pipe.jpg", "album.jpg", "lost.jpg")} == {
        "pipe.jpg": None,
        "album.jpg": None,
        "lost.jpg": None,
    }


@pytest.mark.parametrize("backwards", [False, True])
def test_of_a_file_and_a_folder_of_one_name_the_later_key_fails(
    run: PreparedRun, paint: Callable, tmp_path: Path, backwards: bool
):
    files = {
        "x.jpg": image_bytes(20, 20, 1),
        "x.jpg/y.jpg": image_bytes(20, 20, 2),
        "plain": image_bytes(20, 20, 3),
        "plain.jpg/deep/z.jpg": image_bytes(20, 20, 4),
        "plain.png/z.jpg": image_bytes(20, 20, 5),
        "words.jpg": b"words " * 50,
        "words.jpg/fine.jpg": image_bytes(20, 20, 6),
    }
    (tmp_path / "files").mkdir()
    for number, data in enumerate(files.values()):
        (tmp_path / "files" / str(number)).write_bytes(data)
    uris = [str(tmp_path / "files" / str(number)) for number in range(len(files))]
    pq.write_table(pa.table({"uri": uris, "key": list(files)}), tmp_path / "list.parquet")
    for _ in range(2):  # a resumed run gives the same rows
        rows = paint(str(tmp_path / "list.parquet"), backwards)
        assert {key: error for key, error in errors(rows).items() if error} == {
            "plain.jpg/deep/z.jpg": "KeyCollision",
            "words.jpg": "Text",
            "x.jpg/y.jpg": "KeyCollision",
        }
        assert "'x.jpg' is a file" in rows["x.jpg/y.jpg", "waves"]["error"]


def test_a_twin_that_cannot_be_read_now_may_be_an_image(
    run: PreparedRun, paint: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """It may have been painted before, or by another process; a location of an unknown kind never is."""
    monkeypatch.setattr(hosts, "GIVE_UP_S", 0.2)
    monkeypatch.setattr(hosts, "HOST_WAIT_S", 0.4)
    (tmp_path / "fine.jpg").write_bytes(image_bytes(20, 20))
    fine = str(tmp_path / "fine.jpg")
    with web_server() as web:
        files = {
            "a": f"{dead_url()}/a",
            "a.jpg": fine,
            "b": "htp://h/b",
            "b.jpg": fine,
            "web.jpg": f"{web.url}/1.jpg",
        }
        pq.write_table(pa.table({"uri": list(files.values()), "key": list(files)}), tmp_path / "list.parquet")
        rows = paint(str(tmp_path / "list.parquet"), True)
    assert errors(rows) == {
        "a": "SourceUnreachable",
        "a.jpg": "KeyCollision",
        "b": "AccessDenied",
        "b.jpg": None,
        "web.jpg": None,
    }


def test_a_name_that_the_store_cannot_hold_is_a_row(run: PreparedRun, paint: Callable):
    folder = Path(run.identity.input)
    name = "n" * 251 + ".tif"
    (folder / name).write_bytes(image_bytes(20, 20, format="TIFF"))
    rows = paint()
    row = rows[name, "waves"]
    assert (row["status"] == "ok" and len(Path(row["output_uri"]).name) <= 255) or row["status"] == "failed"


def test_an_object_that_exists_is_never_replaced(run: PreparedRun, paint: Callable):
    first = paint()["a.jpg", "waves"]
    place = Path(first["output_uri"])
    assert place == Path(run.layout.images_uri("waves"), "a.jpg")
    assert paint()["a.jpg", "waves"]["output_uri"] == str(place), "equal bytes have one place"
    (Path(run.identity.input) / "a.jpg").write_bytes(image_bytes(20, 30, 7))
    for _ in range(2):
        second = paint()["a.jpg", "waves"]
        assert second["output_uri"] == str(place.with_name(f"a~{second['output_sha256'][:12]}.jpg"))
    for row in (first, second):
        assert hashlib.sha256(Path(row["output_uri"]).read_bytes()).hexdigest() == row["output_sha256"]
    assert sorted(path.name for path in place.parent.iterdir()) == sorted([place.name, Path(second["output_uri"]).name])


def test_a_damaged_object_under_a_name_with_its_digest_is_left_alone(run: PreparedRun, paint: Callable):
    """As a power cut may leave it."""
    Path(paint()["a.jpg", "waves"]["output_uri"]).write_bytes(b"somebody else's")
    damaged = Path(paint()["a.jpg", "waves"]["output_uri"])
    damaged.write_bytes(b"")
    row = paint()["a.jpg", "waves"]
    assert row["status"] == "ok" and row["output_uri"] != str(damaged)
    assert hashlib.sha256(Path(row["output_uri"]).read_bytes()).hexdigest() == row["output_sha256"]
    assert damaged.read_bytes() == b""


def test_names_that_the_file_system_folds_do_not_replace_each_other(
    run: PreparedRun, paint: Callable, monkeypatch: pytest.MonkeyPatch
):
    for number, name in enumerate(("B.jpg", "b.jpg", "\u00e9.jpg", "e\u0301.jpg")):
        (Path(run.identity.input) / name).write_bytes(image_bytes(20, 20, number))
    create, stat = LocalStore.create, LocalStore.stat

    def folded(name: str) -> str:
        return unicodedata.normalize("NFC", name).casefold()

    def same(path: str) -> list[Path]:
        return [other for other in Path(path).parent.iterdir() if folded(other.name) == folded(Path(path).name)]

    def create_folding(self: LocalStore, path: str, data: bytes, *, durable: bool = True) -> bool:
        return not same(path) and create(self, path, data, durable=durable)

    def stat_folding(self: LocalStore, path: str) -> ObjectStat:
        return stat(self, str([*same(path), Path(path)][0]))

    paint()  # makes the folders
    for style in ("waves", "dunes"):
        for path in Path(run.layout.images_uri(style)).iterdir():
            path.unlink()
    monkeypatch.setattr(LocalStore, "create", create_folding)
    monkeypatch.setattr(LocalStore, "stat", stat_folding)
    rows = paint()
    for row in rows.values():
        assert hashlib.sha256(Path(row["output_uri"]).read_bytes()).hexdigest() == row["output_sha256"]
    assert len({row["output_uri"] for row in rows.values()}) == 10
