"""Runs with one look for their library (``--look library``)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stylemill.auditing.verify import verify
from stylemill.errors import ConfigError
from stylemill.manifest.read import read_manifest
from stylemill.painting.options import PaintOptions
from stylemill.storage import Storage, StorageOptions
from stylemill.style_file import read_header
from stylemill.style_model import to_bytes
from stylemill.stylizing.config import StylizeConfig
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
