"""Mistakes that are found before Ray starts; nothing is overwritten."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from stylemill.errors import ConfigError
from stylemill.images.options import EncodeOptions
from stylemill.storage import Storage
from stylemill.storage.sources import find_sources
from stylemill.stylizing.config import StylizeConfig
from stylemill.stylizing.preflight import PreparedRun, prepare
from tests.committed import commit_run
from tests.drawn import image_bytes
from tests.web import web_server


@pytest.fixture
def library(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(image_bytes(20, 30))
    return folder


def prepared(style: Path, source: object, out: object, **changes: Any) -> PreparedRun:
    return prepare(StylizeConfig(model=(str(style),), input=str(source), out=str(out), **changes))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("other_file", ["thesis.txt", "a/photo.jpg", "manifest/x", "runs.txt", "zzz/deep/er.bin"])
def test_an_output_with_other_files_is_refused(style_file: Path, library: Path, tmp_path: Path, other_file: str):
    out = tmp_path / "out"
    (out / other_file).parent.mkdir(parents=True)
    (out / other_file).write_bytes(b"years of work")
    with pytest.raises(ConfigError, match="contains files of something else") as caught:
        prepared(style_file, library, out)
    assert caught.value.field == "out" and other_file in str(caught.value)
    assert contents(out) == {other_file: b"years of work"}


def test_an_output_of_earlier_runs_is_accepted_unless_it_contains_other_files(
    style_file: Path, second_style_file: Path, library: Path, tmp_path: Path
):
    out = tmp_path / "out"
    first = prepared(style_file, library, out)
    assert prepared(second_style_file, library, out).layout.run_id != first.layout.run_id
    (out / "images" / "waves").mkdir(parents=True)
    (out / "images" / "waves" / "a.jpg").write_bytes(b"")
    assert prepared(style_file, library, out).layout == first.layout
    (out / "mine").write_bytes(b"")
    with pytest.raises(ConfigError, match="files of something else"):
        prepared(style_file, library, out)


def test_an_output_that_is_a_file_is_refused(style_file: Path, library: Path, tmp_path: Path):
    (tmp_path / "out").write_bytes(b"years of work")
    with pytest.raises(ConfigError) as caught:
        prepared(style_file, library, tmp_path / "out")
    assert caught.value.field == "out"
    assert (tmp_path / "out").read_bytes() == b"years of work"


def test_an_output_on_the_web_is_refused_without_a_request(style_file: Path, library: Path):
    with web_server() as web:
        with pytest.raises(ConfigError, match=r"out='http://.*over http"):
            prepared(style_file, library, f"{web.url}/out")
        assert not web.requests


def test_an_output_inside_the_input_is_refused(style_file: Path, library: Path, tmp_path: Path):
    before = contents(library)
    (tmp_path / "link").symlink_to(library)
    for out in (library, library / "out", tmp_path / "link" / "out"):
        with pytest.raises(ConfigError, match="is inside the input"):
            prepared(style_file, library, out)
    assert contents(library) == before


@pytest.mark.parametrize(("pattern", "out"), [("*.jpg", "painted"), ("*", "painted"), ("[ab].jpg", "x/y")])
def test_an_output_beside_the_files_that_a_glob_names_is_apart_from_them(
    style_file: Path, library: Path, pattern: str, out: str
):
    config = StylizeConfig(model=(str(style_file),), input=str(library / pattern), out=str(library / out))
    first = prepare(config)
    (library / out / "images" / "waves").mkdir(parents=True)
    (library / out / "images" / "waves" / "a.jpg").write_bytes(b"")
    assert prepare(config).identity == first.identity
    found = [source.key for source in find_sources(Storage(), str(library / pattern))]
    assert found and not [key for key in found if key.startswith(out)]


@pytest.mark.parametrize("pattern", ["**", "**/*.jpg", "*/*/*/*.jpg", "*/*.jpg"])
def test_an_output_that_a_glob_reaches_into_is_refused(style_file: Path, library: Path, pattern: str):
    (library / "1" / "2" / "3").mkdir(parents=True)
    for folder in ("1", "1/2", "1/2/3"):
        (library / folder / "c.jpg").write_bytes(image_bytes(20, 20))
    with pytest.raises(ConfigError, match="is inside the input"):
        prepare(StylizeConfig(model=(str(style_file),), input=str(library / pattern), out=str(library / "out")))


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"run_id": "mine"}'])
def test_a_damaged_identity_is_refused_and_not_overwritten(
    style_file: Path, library: Path, tmp_path: Path, damage: bytes
):
    run = prepared(style_file, library, tmp_path / "out", run_id="mine")
    Path(run.layout.identity_uri).write_bytes(damage)
    before = contents(tmp_path / "out")
    with pytest.raises(ConfigError, match=r"damaged run\.json") as caught:
        prepared(style_file, library, tmp_path / "out", run_id="mine")
    assert caught.value.field == "run_id"
    assert contents(tmp_path / "out") == before


def test_a_model_that_was_exchanged_in_the_runs_folder_is_found_before_ray_starts(
    style_file: Path, second_style_file: Path, library: Path, tmp_path: Path
):
    run = prepared(style_file, library, tmp_path / "out")
    copy = Path(run.layout.model_uri("waves"))
    whole = copy.read_bytes()
    copy.write_bytes(second_style_file.read_bytes())
    with pytest.raises(ConfigError, match="not the model that this run was planned with") as caught:
        prepared(style_file, library, tmp_path / "out")
    assert (caught.value.field, caught.value.value) == ("model", str(copy))
    copy.unlink()
    prepared(style_file, library, tmp_path / "out")
    assert copy.read_bytes() == whole


def test_preparing_twice_finds_the_same_run(run: PreparedRun):
    before = {path: path.read_bytes() for path in Path(run.layout.out).rglob("*") if path.is_file()}
    again = prepare(run.config)
    assert (again.identity, again.layout, again.success) == (run.identity, run.layout, None)
    assert {path: path.read_bytes() for path in Path(run.layout.out).rglob("*") if path.is_file()} == before


def test_other_settings_and_other_sources_get_folders_of_their_own(style_file: Path, library: Path, tmp_path: Path):
    out, others = tmp_path / "out", tmp_path / "others"
    others.mkdir()
    (others / "a.jpg").write_bytes(image_bytes(20, 30, 2))
    first = prepared(style_file, library, out)
    runs = [
        first,
        prepared(style_file, library, out, encode=EncodeOptions(quality=40)),
        prepared(style_file, others, out),
    ]
    folders = [run.identity.styles[0].folder for run in runs]
    assert folders[0] == "waves" and len(set(folders)) == 3
    assert all(folder.startswith("waves~") for folder in folders[1:])
    assert prepared(style_file, library, out).identity == first.identity


def test_an_input_in_the_folder_of_its_own_results_is_refused(style_file: Path, library: Path, tmp_path: Path):
    for folder in ("waves", "waves~12345678"):
        source = tmp_path / "out" / "images" / folder
        source.mkdir(parents=True)
        (source / "a.jpg").write_bytes(image_bytes(20, 30))
        with pytest.raises(ConfigError, match="inside the folder of the results"):
            prepared(style_file, source, tmp_path / "out")


def test_a_run_of_an_early_version_keeps_its_folder(style_file: Path, library: Path, tmp_path: Path):
    run = prepared(style_file, library, tmp_path / "out")
    tree = json.loads(Path(run.layout.identity_uri).read_text())
    del tree["styles"][0]["tree"]
    Path(run.layout.identity_uri).write_text(json.dumps(tree))
    prepared(style_file, library, tmp_path / "out", encode=EncodeOptions(quality=40))
    assert prepared(style_file, library, tmp_path / "out").identity.styles[0].folder == "waves"


def test_committed_runs_of_early_versions_keep_their_folder(style_file: Path, library: Path, tmp_path: Path):
    out = tmp_path / "out"
    early = prepared(style_file, library, out).identity.styles[0]
    shutil.rmtree(out)
    layout = commit_run(Storage(), str(out), fingerprint=early.fingerprint, input_uri=str(library))
    assert not (out / "state").exists()
    other = prepared(style_file, library, out, encode=EncodeOptions(quality=40))
    assert other.identity.styles[0].folder.startswith("waves~")
    assert prepared(style_file, library, out).identity.styles[0].folder == "waves"
    assert layout.run_id == "r1"


@pytest.mark.parametrize(
    ("name", "cure"), [("a.pth", "stylemill models import --from"), ("a.safetensors", "give a style")]
)
def test_a_checkpoint_of_another_implementation_is_sent_to_the_import(
    library: Path, tmp_path: Path, name: str, cure: str
):
    (tmp_path / name).write_bytes(b"PK" + bytes(200))
    with pytest.raises(ConfigError, match=cure):
        prepared(tmp_path / name, library, tmp_path / "out")
