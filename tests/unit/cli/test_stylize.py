"""What ``stylize`` says of a run that is committed already; painting itself is tested on Ray."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from stylemill.cli.stylize import run
from stylemill.errors import StylemillError
from stylemill.storage import Storage
from stylemill.storage.sources import find_sources
from stylemill.stylizing import incremental
from stylemill.stylizing.config import StylizeConfig
from stylemill.stylizing.preflight import prepare
from tests.committed import commit_run
from tests.drawn import image_bytes

Commit = Callable[..., StylizeConfig]


@pytest.fixture
def library(tmp_path: Path) -> Path:
    for name in ("a.jpg", "b/c.jpg"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(image_bytes(20, 30))
    return tmp_path / "in"


@pytest.fixture
def commit(style_file: Path, tmp_path: Path) -> Commit:
    """Return a function that commits a run over an input as it is now, and returns the config of its command."""

    def commit(source: object, **changes: Any) -> StylizeConfig:
        config = StylizeConfig(model=(str(style_file),), input=str(source), out=str(tmp_path / "out"))
        identity = prepare(config).identity
        etags = {found.key: found.etag for found in find_sources(Storage(), str(source))}
        commit_run(
            Storage(),
            config.out,
            identity.run_id,
            shards=[list(etags)],
            input_uri=identity.input,
            fingerprint=identity.styles[0].fingerprint,
            etags=etags,
            **changes,
        )
        return config

    return commit


def test_a_finished_run_says_that_it_is_done(commit: Commit, library: Path, capsys: pytest.CaptureFixture[str]):
    config = commit(library, failed=["a.jpg"])
    assert run(config) == 0
    said = capsys.readouterr().out
    assert "already committed" in said and "--incremental" not in said


def test_a_finished_run_says_what_is_new_since(commit: Commit, library: Path, capsys: pytest.CaptureFixture[str]):
    config = commit(library)
    (library / "b" / "0.jpg").write_bytes(b"new")
    assert run(config) == 0
    assert "1 source is new or changed since, the first 'b/0.jpg'" in (said := capsys.readouterr().out)
    assert "add --incremental" in said
    (library / "a.jpg").write_bytes(b"other")
    assert run(config) == 0
    assert "2 sources are new or changed since, the first 'a.jpg'" in capsys.readouterr().out
    (library / "a.jpg").unlink()  # what was removed is nothing to paint
    assert run(config) == 0
    assert "1 source is new" in capsys.readouterr().out
    # An incremental run that has painted them is in the history of the output.
    identity = prepare(config).identity
    etags = {found.key: found.etag for found in find_sources(Storage(), str(library))}
    fingerprint = identity.styles[0].fingerprint
    shards = [["b/0.jpg"]]
    commit_run(
        Storage(), config.out, "r2", shards, etags=etags, input_uri=str(library), fingerprint=fingerprint, sequence=9
    )
    assert run(config) == 0
    assert "new or changed" not in capsys.readouterr().out


def test_a_list_that_has_grown(commit: Commit, library: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "list.txt").write_text(f"{library}/a.jpg\n")
    config = commit(tmp_path / "list.txt")
    assert run(config) == 0 and "new" not in capsys.readouterr().out
    (tmp_path / "list.txt").write_text(f"{library}/a.jpg\n{library}/b/c.jpg\n")
    assert run(config) == 0 and "1 source is new" in capsys.readouterr().out


def test_the_search_for_new_sources_ends(
    commit: Commit, library: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    config = commit(library)
    for name in ("a0.jpg", "a1.jpg", "z.jpg"):
        (library / name).write_bytes(b"new")
    ticks = iter(range(0, 1000, 8))  # 8 seconds for each source
    monkeypatch.setattr(incremental, "time", SimpleNamespace(monotonic=lambda: next(ticks)))
    assert run(config) == 0
    assert "at least 1 source is new or changed since, the first 'a0.jpg'" in capsys.readouterr().out


def test_an_input_without_any_image_is_an_error(commit: Commit, tmp_path: Path):
    (tmp_path / "in").mkdir()
    for name in ("a.md", "b.md"):
        (tmp_path / "in" / name).write_text("words " * 50)
    config = commit(tmp_path / "in", skipped=["a.md", "b.md"])
    with pytest.raises(StylemillError, match=r"no image, all 2 sources were skipped \(2 x Text\); give images") as told:
        run(config)
    assert ".csv" in str(told.value)


def test_an_input_with_one_image_is_none(commit: Commit, library: Path):
    assert run(commit(library, skipped=["b/c.jpg"])) == 0
