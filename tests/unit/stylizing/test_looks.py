"""Runs with one look for their library (``--look library``)."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from stylemill.auditing.verify import verify
from stylemill.errors import ConfigError
from stylemill.library_look import _entries
from stylemill.manifest.read import read_manifest
from stylemill.painting.fetch import fetch_source
from stylemill.painting.options import PaintOptions
from stylemill.painting.painter import ImagePainter
from stylemill.storage import ObjectStat, Storage, StorageOptions
from stylemill.style_file import read_header
from stylemill.style_model import StyleModel, from_bytes, to_bytes
from stylemill.stylizing.config import StylizeConfig
from stylemill.stylizing.looks import FolderLooks
from stylemill.stylizing.preflight import check, prepare
from stylemill.stylizing.run import stylize
from tests.drawn import image_bytes, style_model

Config = Callable[..., StylizeConfig]


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "in").mkdir()
    for number in range(4):
        (tmp_path / "in" / f"{number}.jpg").write_bytes(image_bytes(40, 50, number))
    (tmp_path / "style.safetensors").write_bytes(to_bytes(style_model()))

    def make(**changes: Any) -> StylizeConfig:
        fields = {"model": (str(tmp_path / "style.safetensors"),), "input": str(tmp_path / "in"), "num_actors": 1}
        return StylizeConfig(
            **{**fields, "out": str(tmp_path / "out"), "runner": "local", "look": "library", **changes}
        )

    return make


def looks(tmp_path: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (tmp_path / "out" / "state" / "looks").glob("*")}


def test_a_look_is_kept_for_all_later_runs_over_the_sources(tmp_path: Path, config: Config):
    first = stylize(prepare(config()))
    ((_, data),) = looks(tmp_path).items()
    rows = read_manifest(Storage(), first.layout).to_pylist()
    sha256 = read_header(data, source="look").sha256
    assert {(row["status"], row["style"], row["model_sha256"]) for row in rows} == {("ok", "waves", sha256)}
    assert verify(StorageOptions(), first.layout, with_ray=False).problems == []
    assert stylize(prepare(config())).already_committed
    (tmp_path / "in" / "new.jpg").write_bytes(image_bytes(40, 50, 77))
    later = stylize(prepare(config(incremental=True)))
    assert [row["key"] for row in read_manifest(Storage(), later.layout).to_pylist()] == ["new.jpg"]
    assert list(looks(tmp_path).values()) == [data]


def test_another_size_or_library_has_another_look(tmp_path: Path, config: Config):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.jpg").write_bytes(image_bytes(40, 50, 9))
    for changes in ({}, {"paint": PaintOptions(max_size_px=32)}, {"input": str(tmp_path / "other")}):
        prepare(config(**changes))
    assert len(looks(tmp_path)) == 3


def test_checking_alone_writes_nothing_and_finds_the_same_look(tmp_path: Path, config: Config):
    run, (model,) = check(config())
    assert not (tmp_path / "out").exists()
    prepared = prepare(config())
    assert prepared.identity.styles[0].model_sha256 == model.sha256
    assert prepared.identity.run_id == run.identity.run_id
    assert prepare(config(look="image")).identity.run_id != run.identity.run_id


def test_libraries_without_images_and_folders_of_others_are_refused(tmp_path: Path, config: Config):
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "a.txt").write_text("words")
    with pytest.raises(ConfigError, match="no image from which a look can be taken"):
        prepare(config(input=str(tmp_path / "words")))
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "file").write_text("words")
    with pytest.raises(ConfigError, match="contains files of something else"):
        prepare(config(out=str(tmp_path / "foreign")))
    assert [path.name for path in (tmp_path / "foreign").iterdir()] == ["file"]


def test_an_output_among_the_sources_is_refused_before_anything_is_written(tmp_path: Path, config: Config):
    with pytest.raises(ConfigError) as caught:
        prepare(config(out=str(tmp_path / "in" / "out")))
    assert caught.value.field == "out" and not (tmp_path / "in" / "out").exists()


def dim(data: bytes) -> bytes:
    """Return a picture at a quarter of its light."""
    buffer = io.BytesIO()
    Image.open(io.BytesIO(data)).point(lambda level: level // 4).save(buffer, "PNG")
    return buffer.getvalue()


def painted(tmp_path: Path, key: str) -> bytes:
    return (tmp_path / "out" / "images" / "waves" / key).read_bytes()


def test_each_folder_has_a_look_of_its_own(tmp_path: Path, config: Config):
    same = image_bytes(40, 50, 9, format="PNG")
    for folder in ("day", "night", "night/deep"):
        (tmp_path / "in" / folder).mkdir()
        (tmp_path / "in" / folder / "same.png").write_bytes(same)
    for number in range(3):
        (tmp_path / "in" / "night" / f"{number}.png").write_bytes(dim(image_bytes(40, 50, number, format="PNG")))
    run = stylize(prepare(config(look="folder")))
    assert verify(StorageOptions(), run.layout, with_ray=False).problems == []
    rows = read_manifest(Storage(), run.layout).to_pylist()
    assert {(row["status"], row["model_sha256"]) for row in rows} == {("ok", style_model_sha256(tmp_path))}
    assert (
        painted(tmp_path, "day/same.png")
        == painted(tmp_path, "night/deep/same.png")
        != painted(tmp_path, "night/same.png")
    )  # alone in their folders, two are painted by their own statistics
    kept = looks(tmp_path)
    assert len(kept) == 4 and all(len(data) < 20_000 for data in kept.values())
    before = {key: painted(tmp_path, key) for key in ("day/same.png", "night/same.png")}
    (tmp_path / "in" / "night" / "bright.png").write_bytes(image_bytes(40, 50, 31, format="PNG"))
    later = stylize(prepare(config(look="folder", incremental=True)))
    assert [row["key"] for row in read_manifest(Storage(), later.layout).to_pylist()] == ["night/bright.png"]
    assert looks(tmp_path) == kept and {key: painted(tmp_path, key) for key in before} == before
    fingerprints = {prepare(config(look=look)).identity.fingerprint for look in ("image", "folder", "library")}
    assert len(fingerprints) == 3


def style_model_sha256(tmp_path: Path) -> str:
    return read_header((tmp_path / "style.safetensors").read_bytes(), source="m").sha256


def test_a_folder_is_painted_alike_by_any_number_of_workers(tmp_path: Path, config: Config):
    for number in range(40):
        (tmp_path / "in" / f"more{number}.jpg").write_bytes(image_bytes(24 + number % 3, 30, number))
    pictures = []
    for workers in (1, 2):
        out = tmp_path / f"out{workers}"
        stylize(prepare(config(look="folder", num_actors=workers, out=str(out))))
        pictures.append({path.name: path.read_bytes() for path in (out / "images" / "waves").iterdir()})
    assert pictures[0] == pictures[1] and len(pictures[0]) == 44


def folder_looks(tmp_path: Path, config: Config, *names: str) -> tuple[FolderLooks, dict[str, list[StyleModel]]]:
    settings = config(look="folder")
    built: dict[str, list[StyleModel]] = {}

    def build(look: StyleModel) -> ImagePainter:
        built.setdefault(look.name, []).append(look)
        return look.painter(settings.paint)

    models = {name: from_bytes(to_bytes(style_model(name)), source=name) for name in names}
    return FolderLooks(Storage(), settings, str(tmp_path / "in"), str(tmp_path / "out"), models, build), built


def test_all_styles_of_a_folder_share_what_was_drawn_and_folders_below_are_passed_over(
    tmp_path: Path, config: Config, monkeypatch: pytest.MonkeyPatch
):
    for name in ("list.txt", "odd [x]*"):
        (tmp_path / "in" / "sub" / name / "deep").mkdir(parents=True)
        for number in range(3):
            (tmp_path / "in" / "sub" / name / f"{number}.jpg").write_bytes(image_bytes(30, 40, number))
            (tmp_path / "in" / "sub" / name / "deep" / f"{number}.jpg").write_bytes(image_bytes(30, 40, 90 + number))
        (tmp_path / "in" / "sub" / name / "damaged.jpg").write_bytes(b"\xff\xd8\xff no more")
    looks_of, built = folder_looks(tmp_path, config, "waves", "dunes")
    fetched: list[str] = []

    def fetch(storage: Storage, uri: str, *rest: Any) -> bytes:
        fetched.append(Path(uri).name)
        return fetch_source(storage, uri, *rest)

    monkeypatch.setattr("stylemill.library_look.fetch_source", fetch)
    for name in ("list.txt", "odd [x]*"):
        for style in ("waves", "dunes"):
            assert looks_of.painter(style, f"sub/{name}/0.jpg") is looks_of.painter(style, f"sub/{name}/1.jpg")
    assert sorted(fetched) == sorted(2 * ["0.jpg", "1.jpg", "2.jpg", "damaged.jpg"])
    for key, tensor in built["waves"][0].state_dict.items():
        assert tensor.equal(built["waves"][1].state_dict[key])  # of equal photographs


def test_folders_without_an_image_have_no_look_until_there_is_one(tmp_path: Path, config: Config):
    (tmp_path / "in" / "empty").mkdir()
    (tmp_path / "in" / "empty" / "a.jpg").write_bytes(b"\xff\xd8\xff no more")
    looks_of, _ = folder_looks(tmp_path, config, "waves")
    assert looks_of.painter("waves", "empty/a.jpg") is None and not looks(tmp_path)
    (tmp_path / "in" / "empty" / "b.jpg").write_bytes(image_bytes(30, 40))
    later, built = folder_looks(tmp_path, config, "waves")
    assert later.painter("waves", "empty/a.jpg") is not None and len(looks(tmp_path)) == len(built["waves"]) == 1


def test_the_entries_of_a_large_tree_are_found_without_listing_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for folder in ("a", "b", "c"):
        (tmp_path / "tree" / folder).mkdir(parents=True)
        for number in range(20):
            (tmp_path / "tree" / folder / f"{number:02d}.jpg").write_bytes(b"")
    (tmp_path / "tree" / "b.jpg").write_bytes(b"")
    storage = Storage()
    listed: list[str] = []
    everything = Storage.list_objects

    def list_objects(self: Storage, *arguments: Any, **options: Any) -> Iterator[ObjectStat]:
        for found in everything(self, *arguments, **options):
            listed.append(found.key)
            yield found

    monkeypatch.setattr(Storage, "list_objects", list_objects)
    assert [found.key for found in _entries(storage, str(tmp_path / "tree"))] == [
        "a/00.jpg",
        "b.jpg",
        "b/00.jpg",
        "c/00.jpg",
    ]
    assert len(listed) == 4


def test_looks_of_folders_need_folders_and_a_damaged_one_is_named(tmp_path: Path, config: Config):
    (tmp_path / "list.txt").write_text(f"{tmp_path}/in/0.jpg\n")
    for given in (str(tmp_path / "list.txt"), str(tmp_path / "in" / "*.jpg"), str(tmp_path / "in" / "0.jpg")):
        with pytest.raises(ConfigError, match="is no folder, in which --look folder could draw photographs"):
            prepare(config(look="folder", input=given))
    with pytest.raises(ConfigError, match="is painted on CPUs alone"):
        config(look="folder", paint=PaintOptions(device="cuda"))
    stylize(prepare(config(look="folder")))
    (look,) = (tmp_path / "out" / "state" / "looks").glob("*")
    look.write_bytes(look.read_bytes()[:40])
    (tmp_path / "in" / "new.jpg").write_bytes(image_bytes(40, 50, 77))
    with pytest.raises(ConfigError, match="is a damaged look"):
        stylize(prepare(config(look="folder", incremental=True)))
