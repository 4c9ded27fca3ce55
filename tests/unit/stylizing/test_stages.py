"""Reading, painting and writing as plain callables in this process."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stylemill.errors import ConfigError, StorageError
from stylemill.manifest.schema import MANIFEST_SCHEMA, make_table
from stylemill.storage import Storage
from stylemill.stylizing.config import StylizeConfig
from stylemill.stylizing.liveness import Progress, RunTracker
from stylemill.stylizing.paint import Painter
from stylemill.stylizing.plan import TwinFinder, plan_row
from stylemill.stylizing.preflight import PreparedRun, prepare
from stylemill.stylizing.read import Reader
from stylemill.stylizing.write import Writer
from tests.drawn import image_bytes

Row = dict[str, Any]


@pytest.fixture
def run(style_file: Path, second_style_file: Path, tmp_path: Path) -> PreparedRun:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(image_bytes(20, 30))
    models = (str(style_file), str(second_style_file))
    return prepare(StylizeConfig(model=models, input=str(tmp_path / "in"), out=str(tmp_path / "out")))


@pytest.fixture
def paint(run: PreparedRun) -> Callable[[], dict[tuple[str, str], Row]]:
    """Return a function that paints the input folder as it is now, without Ray: rows by key and style."""
    storage = Storage()
    from stylemill.images.options import DecodeOptions
    from stylemill.storage.sources import find_sources

    reader = Reader(storage, DecodeOptions(isolate_decoding=False, max_source_bytes=10**6))
    painter = Painter(storage, run.layout, run.identity.styles, run.config)
    writer = Writer(storage, run.layout, run.identity, run.config.encode)

    def all_rows(input: str = run.identity.input, backwards: bool = False) -> dict[tuple[str, str], Row]:
        twins = TwinFinder()
        planned = [plan_row(twins.add(found)) for found in find_sources(storage, input)]
        rows = [row for one in planned[:: -1 if backwards else 1] for row in writer(painter(reader(one)))]
        make_table(rows, MANIFEST_SCHEMA)
        return {(row["key"], row["style"]): row for row in rows}

    return all_rows


def errors(rows: dict[tuple[str, str], Row]) -> dict[str, str | None]:
    return {key: row.get("error_type") for (key, style), row in rows.items() if style == "waves"}


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


def test_bad_sources_are_rows(run: PreparedRun, paint: Callable):
    folder = Path(run.identity.input)
    (folder / "empty.png").write_bytes(b"")
    (folder / "large.jpg").write_bytes(image_bytes(20, 20) + bytes(10**6))
    (folder / "words.jpg").write_bytes(b"words " * 50)
    (folder / "cut.jpg").write_bytes(image_bytes(80, 80)[:400])
    rows = paint()
    assert errors(rows) == {
        "a.jpg": None,
        "cut.jpg": "Truncated",
        "empty.png": "EmptyFile",
        "large.jpg": "TooLarge",
        "words.jpg": "Text",
    }
    assert rows["words.jpg", "dunes"]["status"] == "skipped" and rows["cut.jpg", "dunes"]["status"] == "failed"
    assert [path.name for path in Path(run.layout.images_uri("waves")).iterdir()] == ["a.jpg"]


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
    for _ in range(2):  # a resumed run says the same
        rows = paint(str(tmp_path / "list.parquet"), backwards)
        assert {key: error for key, error in errors(rows).items() if error} == {
            "plain.jpg/deep/z.jpg": "KeyCollision",
            "words.jpg": "Text",
            "x.jpg/y.jpg": "KeyCollision",
        }
        assert "'x.jpg' is a file" in rows["x.jpg/y.jpg", "waves"]["error"]


def test_a_source_of_unknown_size_is_looked_at_before_it_is_fetched(run: PreparedRun, paint: Callable, tmp_path: Path):
    (tmp_path / "large").write_bytes(image_bytes(20, 20) + bytes(10**6))
    (tmp_path / "small").write_bytes(image_bytes(20, 20))
    uris = [str(tmp_path / name) for name in ("large", "small", "gone")]
    pq.write_table(pa.table({"uri": uris, "key": ["large", "small", "gone"]}), tmp_path / "list.parquet")
    assert errors(paint(str(tmp_path / "list.parquet"))) == {
        "large": "TooLarge",
        "small": None,
        "gone": "SourceVanished",
    }


def test_a_name_that_the_store_cannot_hold_is_a_row(run: PreparedRun, paint: Callable):
    folder = Path(run.identity.input)
    name = "n" * 251 + ".tif"
    (folder / name).write_bytes(image_bytes(20, 20, format="TIFF"))
    rows = paint()
    row = rows[name, "waves"]
    assert (row["status"] == "ok" and len(Path(row["output_uri"]).name) <= 255) or row["status"] == "failed"


def test_a_model_that_was_exchanged_is_refused(run: PreparedRun, second_style_file: Path):
    storage = Storage()
    storage.write_bytes(run.layout.model_uri("waves"), second_style_file.read_bytes())
    with pytest.raises(ConfigError, match="waves"):
        Painter(storage, run.layout, run.identity.styles, run.config)
    storage.delete(run.layout.model_uri("waves"))
    with pytest.raises((ConfigError, StorageError)):
        Painter(storage, run.layout, run.identity.styles, run.config)


def test_preparing_twice_finds_the_same_run(run: PreparedRun):
    before = {path: path.read_bytes() for path in Path(run.layout.out).rglob("*") if path.is_file()}
    again = prepare(run.config)
    assert (again.identity, again.layout, again.success) == (run.identity, run.layout, None)
    assert {path: path.read_bytes() for path in Path(run.layout.out).rglob("*") if path.is_file()} == before


def test_the_tracker_counts_and_remembers_what_was_in_flight():
    tracker = RunTracker()
    assert tracker.progress()[:2] == (0, {})
    for key in ("a", "b", "b", "c"):
        tracker.begin(key)
    tracker.finish([("a", ["ok", "failed"])])
    assert tracker.unfinished(["a", "b", "c", "d"]) == {"b": 2, "c": 1}
    tracker.begin("d", finished=[("b", ["ok", "ok"])])
    assert tracker.unfinished(["b"]) == {}
    assert tracker.progress()[:2] == (2, {"ok": 3, "failed": 1})
    tracker.survived(["c", "never begun"])
    assert tracker.unfinished(["a", "b", "c", "d"]) == {"d": 1}
    tracker.finish([("c", ["ok"])])
    assert tracker.progress()[:2] == (3, {"ok": 4, "failed": 1})


def test_progress_guesses_nothing_before_the_first_image():
    assert Progress(num_sources=10, num_resumed=0).seconds_left is None
    half = Progress(num_sources=10, num_resumed=2, num_finished=4, busy_s=8.0)
    assert (half.images_per_s, half.seconds_left) == (0.5, 8.0)
