"""The bulk flow on a real cluster, from a folder to a folder."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from stylemill.auditing.verify import verify
from stylemill.errors import ConfigError
from stylemill.images.decode import decode
from stylemill.images.encode import encode
from stylemill.images.options import DecodeOptions, EncodeOptions, output_key
from stylemill.manifest.commit import write_pending
from stylemill.manifest.layout import RunLayout
from stylemill.manifest.read import read_manifest
from stylemill.nn.fast_net import FastNet
from stylemill.nn.precision import resolve_precision
from stylemill.storage import Storage, StorageOptions
from stylemill.style_model import from_bytes
from tests.drawn import image_bytes
from tests.integration.conftest import MIXED, NOT_PAINTED, both_runners, contents_of, fill, rows_of, state_of

Paint = Callable[..., Any]


def painted_directly(style_file: Path, files: dict[str, bytes]) -> dict[str, bytes]:
    """Paint pictures in a plain loop in this process; return the results by output key."""
    net = from_bytes(style_file.read_bytes(), source="test").build_network()
    fast = FastNet(net, precision=resolve_precision("auto", "cpu"))
    made = {}
    for key, data in files.items():
        source = decode(data, DecodeOptions())
        encoded = encode(fast.stylize(source.image_HWC), source, EncodeOptions())
        made[output_key(key, encoded.format)] = encoded.data
    return made


@pytest.fixture(scope="module")
def painted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Holds the first complete run of each runner, for the tests that only read it."""
    return {name: {"out": tmp_path_factory.mktemp(name) / "out"} for name in ("ray", "local")}


@pytest.fixture
def complete_run(painted: dict[str, Any], runner: str, paint: Paint, mixed_library: Path) -> Any:
    mine = painted[runner]
    if "result" not in mine:
        mine["result"] = paint(mixed_library, mine["out"], num_actors=2)
    return mine["result"]


@both_runners
def test_one_row_for_every_source(complete_run: Any, mixed_library: Path):
    rows = rows_of(complete_run)
    assert [row["key"] for row in rows] == sorted(MIXED)
    assert {row["key"]: row["status"] for row in rows if row["status"] != "ok"} == NOT_PAINTED
    for row in rows:
        assert row["source_uri"] == f"{mixed_library}/{row['key']}"
        assert row["source_bytes"] == len(MIXED[row["key"]])
        assert row["source_sha256"] == hashlib.sha256(MIXED[row["key"]]).hexdigest()
        assert (row["style"], row["style_version"], row["attempt"]) == ("waves", "1", 1)
        assert row["run_id"] == complete_run.layout.run_id and row["finished_at"].tzinfo is not None
        if row["status"] == "ok":
            assert row["error_type"] is None and row["forward"] and row["stylize_ms"] > 0 < row["decode_ms"]
        else:
            assert row["error_type"] and row["error"] and row["output_uri"] is None


@both_runners
def test_counts(complete_run: Any):
    wanted = Counter({"ok": len(MIXED) - len(NOT_PAINTED), **Counter(NOT_PAINTED.values())})
    assert Counter(complete_run.success.counts) == wanted
    assert complete_run.success.num_sources == complete_run.progress.num_sources == len(MIXED)
    assert complete_run.progress.num_finished == len(MIXED) and complete_run.progress.num_resumed == 0
    assert complete_run.failed_fraction == pytest.approx(2 / 13)
    assert sum(complete_run.errors.values()) == len(NOT_PAINTED)


@both_runners
def test_results_have_the_size_of_their_sources(complete_run: Any):
    for row in rows_of(complete_run):
        if row["status"] == "ok":
            source = Image.open(io.BytesIO(MIXED[row["key"]]))
            result = Image.open(row["output_uri"])
            assert source.size == result.size == (row["width_px"], row["height_px"])
            assert source.size == (row["source_width_px"], row["source_height_px"])


@both_runners
def test_the_tree_of_keys_is_kept_and_the_bytes_are_those_of_a_plain_loop(complete_run: Any, style_file: Path):
    files = {key: data for key, data in MIXED.items() if key not in NOT_PAINTED}
    images = Path(complete_run.layout.images_uri("waves"))
    assert contents_of(images) == painted_directly(style_file, files)
    for row in rows_of(complete_run):
        if row["status"] == "ok":
            data = Path(row["output_uri"]).read_bytes()
            assert (len(data), hashlib.sha256(data).hexdigest()) == (row["output_bytes"], row["output_sha256"])


@both_runners
def test_the_run_is_sound_and_leaves_nothing_half_done(complete_run: Any):
    found = verify(StorageOptions(), complete_run.layout)
    assert found.is_sound, found.problems
    assert (found.num_rows, found.num_objects) == (len(MIXED), len(MIXED) - len(NOT_PAINTED))
    storage = Storage()
    assert list(storage.list_objects(complete_run.layout.pending_uri)) == []
    assert not [path for path in Path(complete_run.layout.out).rglob("*") if path.name.startswith(".")]


@both_runners
def test_the_stored_config_runs_the_same_run(complete_run: Any, capsys: pytest.CaptureFixture[str]):
    from stylemill.cli.main import main

    before = state_of(Path(complete_run.layout.out))
    assert main(["stylize", "--config", complete_run.layout.config_uri]) == 0
    assert "already committed" in capsys.readouterr().out
    assert state_of(Path(complete_run.layout.out)) == before


@both_runners
def test_the_same_command_again_does_nothing(complete_run: Any, paint: Paint, mixed_library: Path):
    before = state_of(Path(complete_run.layout.out))
    again = paint(mixed_library, complete_run.layout.out)
    assert again.already_committed and again.success == complete_run.success
    assert state_of(Path(complete_run.layout.out)) == before


@pytest.mark.parametrize(
    "changes",
    [
        {"runner": "ray"},
        {"runner": "ray", "stages": "separate"},
        {"runner": "ray", "threads_per_actor": 2},
        {"threads_per_actor": 2},
        {"num_actors": None},
    ],
)
def test_output_bytes_do_not_depend_on_the_workers(
    complete_run: Any, paint: Paint, mixed_library: Path, tmp_path: Path, changes: dict[str, Any]
):
    other = paint(mixed_library, tmp_path / "out", **changes)
    assert contents_of(tmp_path / "out" / "images") == contents_of(Path(complete_run.layout.out) / "images")
    fixed = ("key", "status", "error_type", "output_sha256", "source_sha256", "fingerprint", "forward", "note")
    assert [[row[name] for name in fixed] for row in rows_of(other)] == [
        [row[name] for name in fixed] for row in rows_of(complete_run)
    ]


def undo_commit(result: Any, keep_rows: int | None = None) -> RunLayout:
    """Undo the commit of a run, with all or some of its rows pending again."""
    storage, layout = Storage(), result.layout
    rows = read_manifest(storage, layout).to_pylist()
    write_pending(storage, layout, 0, rows[:keep_rows])
    shutil.rmtree(layout.manifest_uri)
    shutil.rmtree(Path(layout.run_uri) / "parts", ignore_errors=True)
    assert isinstance(layout, RunLayout)
    return layout


@both_runners
def test_a_run_that_only_lacks_its_commit_is_committed_without_painting(
    paint: Paint, mixed_library: Path, tmp_path: Path
):
    first = paint(mixed_library, tmp_path / "out")
    rows, images = rows_of(first), state_of(tmp_path / "out" / "images")
    undo_commit(first)
    again = paint(mixed_library, tmp_path / "out")
    assert not again.already_committed
    assert (again.progress.num_resumed, again.progress.num_finished) == (len(MIXED), 0)
    assert rows_of(again) == rows
    assert state_of(tmp_path / "out" / "images") == images, "an image was painted again"
    assert verify(StorageOptions(), again.layout).is_sound


@both_runners
def test_a_resumed_run_paints_only_what_is_missing(paint: Paint, mixed_library: Path, tmp_path: Path):
    first = paint(mixed_library, tmp_path / "out")
    rows, images = rows_of(first), state_of(tmp_path / "out" / "images")
    undo_commit(first, keep_rows=9)
    again = paint(mixed_library, tmp_path / "out")
    assert (again.progress.num_resumed, again.progress.num_finished) == (9, len(MIXED) - 9)
    assert rows_of(again)[:9] == rows[:9]
    assert state_of(tmp_path / "out" / "images") == images, "an object was replaced"
    assert verify(StorageOptions(), again.layout).is_sound


def test_a_manifest_whose_part_is_lost_is_made_again(paint: Paint, tmp_path: Path):
    library = fill(tmp_path / "in", {"a.jpg": image_bytes(20, 30), "b.jpg": image_bytes(30, 20)})
    first = paint(library, tmp_path / "out")
    Storage().delete(first.layout.success_uri)
    Storage().delete(first.layout.part_uri(0))
    again = paint(library, tmp_path / "out")
    assert [row["key"] for row in rows_of(again)] == ["a.jpg", "b.jpg"]
    assert verify(StorageOptions(), again.layout).is_sound


def test_names_that_collide_fail_the_later_key(paint: Paint, tmp_path: Path):
    files = {
        "a.tif": image_bytes(20, 20, 1, "TIFF"),
        "a.tif.png": image_bytes(20, 20, 2, "PNG"),
        "plain": image_bytes(20, 20, 3),
        "plain.jpg": image_bytes(20, 20, 4),
        "text": b"words " * 20,
        "text.jpg": image_bytes(20, 20, 5),
        "other.tif": image_bytes(20, 20, 6, "TIFF"),
        "other.tif.jpg": image_bytes(20, 20, 7),
    }
    result = paint(fill(tmp_path / "in", files), tmp_path / "out", format="png", run_id="as-png", num_actors=2)
    rows = {row["key"]: row for row in rows_of(result)}
    assert {key: row["error_type"] for key, row in rows.items() if row["error_type"]} == {
        "a.tif.png": "KeyCollision",
        "text": "Text",
    }
    assert "rename" in rows["a.tif.png"]["error"]
    result = paint(tmp_path / "in", tmp_path / "out-same")
    errors = {row["key"]: row["error_type"] for row in rows_of(result) if row["error_type"]}
    assert errors == {"plain.jpg": "KeyCollision", "text": "Text"}
    assert verify(StorageOptions(), result.layout).is_sound


def test_links_pipes_and_odd_names_are_rows(paint: Paint, tmp_path: Path):
    import os

    library = fill(tmp_path / "in", {"a.jpg": image_bytes(20, 20)})
    (library / "link.jpg").symlink_to("a.jpg")
    (library / "broken.jpg").symlink_to("nowhere")
    (library / "folder").symlink_to(tmp_path)
    os.mkfifo(library / "pipe.jpg")
    Path(os.fsdecode(os.fsencode(library) + b"/caf\xe9.jpg")).write_bytes(image_bytes(20, 20))
    result = paint(library, tmp_path / "out")
    assert {row["key"]: (row["status"], row["error_type"]) for row in rows_of(result)} == {
        "a.jpg": ("ok", None),
        "link.jpg": ("ok", None),
        "broken.jpg": ("failed", "BrokenLink"),
        "folder": ("skipped", "DirectoryLink"),
        "pipe.jpg": ("skipped", "SpecialFile"),
        "caf\\xe9.jpg": ("failed", "NameNotUtf8"),
    }


def test_sources_from_a_parquet_file_that_vanish_or_climb_are_rows(paint: Paint, tmp_path: Path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    library = fill(tmp_path / "in", {"a.jpg": image_bytes(20, 20), "b.jpg": image_bytes(20, 24)})
    uris = [f"{library}/a.jpg", f"file://{library}/b.jpg", f"{library}/gone.jpg", f"{library}/a.jpg", str(library)]
    keys = ["one", "deep/two.jpg", "three", "../../etc/four", "folder"]
    pq.write_table(pa.table({"uri": uris, "key": keys}), tmp_path / "list.parquet")
    result = paint(tmp_path / "list.parquet", tmp_path / "out")
    assert {row["key"]: row["error_type"] for row in rows_of(result)} == {
        "one": None,
        "deep/two.jpg": None,
        "three": "SourceVanished",
        "../../etc/four": "BadKey",
        "folder": "AccessDenied",
    }
    assert sorted(contents_of(tmp_path / "out" / "images" / "waves")) == ["deep/two.jpg", "one.jpg"]
    assert not (tmp_path / "etc").exists()


@both_runners
def test_several_styles_in_one_pass(paint: Paint, style_file: Path, second_style_file: Path, tmp_path: Path):
    files = {"a.jpg": image_bytes(40, 30, 1), "deep/b.png": image_bytes(20, 44, 2, "PNG"), "notes.txt": b"no image" * 9}
    library = fill(tmp_path / "in", files)
    both = paint(library, tmp_path / "out", num_actors=2, model=[str(style_file), str(second_style_file)])
    assert [(row["key"], row["style"]) for row in rows_of(both)] == [
        (key, style) for key in sorted(files) for style in ("dunes", "waves")
    ]
    assert verify(StorageOptions(), both.layout).is_sound
    del files["notes.txt"]
    for path, style in ((style_file, "waves"), (second_style_file, "dunes")):
        assert contents_of(tmp_path / "out" / "images" / style) == painted_directly(path, files)
    alone = paint(library, tmp_path / "out")
    assert alone.layout.run_id != both.layout.run_id
    assert verify(StorageOptions(), both.layout).is_sound and verify(StorageOptions(), alone.layout).is_sound


def test_a_run_id_of_another_configuration_is_refused(paint: Paint, second_style_file: Path, tmp_path: Path):
    library = fill(tmp_path / "in", {"a.jpg": image_bytes(20, 30)})
    first = paint(library, tmp_path / "out", run_id="mine")
    before = state_of(tmp_path / "out")
    for changes, named in (
        ({"quality": 50}, "quality 90 -> 50"),
        ({"strength": 0.5}, "strength 1.0 -> 0.5"),
        ({"model": str(second_style_file)}, "model"),
        ({"input": str(library / "a.jpg")}, "input"),
    ):
        with pytest.raises(ConfigError, match="run_id='mine'") as caught:
            paint(changes.pop("input", library), tmp_path / "out", run_id="mine", **changes)
        assert named in str(caught.value)
    assert state_of(tmp_path / "out") == before
    assert paint(library, tmp_path / "out", run_id="mine").success == first.success


def test_sources_that_appear_later_are_not_part_of_the_run(paint: Paint, tmp_path: Path):
    library = fill(tmp_path / "in", {"a.jpg": image_bytes(20, 30), "b.jpg": image_bytes(20, 31)})
    first = paint(library, tmp_path / "out")
    undo_commit(first, keep_rows=1)
    fill(library, {"a0.jpg": image_bytes(20, 20)})
    (library / "b.jpg").unlink()
    again = paint(library, tmp_path / "out")
    assert {row["key"]: row["error_type"] for row in rows_of(again)} == {"a.jpg": None, "b.jpg": "SourceVanished"}


@both_runners
def test_success_lists_the_parts(complete_run: Any):
    tree = json.loads(Path(complete_run.layout.success_uri).read_bytes())
    assert tree["run_id"] == complete_run.layout.run_id and tree["schema_version"] == 2
    (part,) = tree["parts"]
    data = Path(complete_run.layout.manifest_uri, part["name"]).read_bytes()
    assert (part["rows"], part["sha256"]) == (len(MIXED), hashlib.sha256(data).hexdigest())
