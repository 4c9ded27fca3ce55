"""``stylize --dry-run``: exact counts, measurements of a sample, and nothing written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stylemill.cli.main import DONE, WRONG_USE, main
from stylemill.manifest.commit import write_pending, write_shard
from stylemill.manifest.schema import PLAN_SCHEMA, make_table
from stylemill.storage import Storage
from stylemill.storage.sources import find_sources
from stylemill.stylizing.config import StylizeConfig
from stylemill.stylizing.plan import TwinFinder, plan_row
from stylemill.stylizing.preflight import check, prepare
from tests.committed import commit_run, row
from tests.drawn import image_bytes


@pytest.fixture
def library(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(4):
        (folder / f"{number}.JPG").write_bytes(image_bytes(100, 200, number))
    (folder / "broken.jpg").write_bytes(image_bytes(40, 40)[:200])
    (folder / "notes").write_text("words " * 30)
    return folder


def planned(style: Path, library: Path, *flags: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    out = library.parent / "out"
    words = ["stylize", "--model", style, "--input", library, "--out", out, "--dry-run", "--json", *flags]
    before = sorted(out.rglob("*"))
    assert main([str(word) for word in words]) == DONE
    assert sorted(out.rglob("*")) == before
    return json.loads(capsys.readouterr().out)


def config_of(style: Path, library: Path, **changes: Any) -> StylizeConfig:
    return StylizeConfig(model=(str(style),), input=str(library), out=str(library.parent / "out"), **changes)


def commit(style: Path, library: Path) -> None:
    config = config_of(style, library)
    run, _ = check(config)
    etags = {found.key: found.etag for found in find_sources(Storage(), str(library))}
    fingerprint = run.identity.styles[0].fingerprint
    prepare(config)
    commit_run(
        Storage(),
        config.out,
        run.identity.run_id,
        shards=[list(etags)],
        input_uri=run.identity.input,
        fingerprint=fingerprint,
        etags=etags,
        failed=["broken.jpg"],
        skipped=["notes"],
    )


def test_counts_kinds_megapixels_time_and_disk(style_file: Path, library: Path, capsys: pytest.CaptureFixture[str]):
    found = planned(style_file, library, capsys=capsys)
    size_bytes = sum(path.stat().st_size for path in library.iterdir())
    assert found["counts"] == {"sources": 6, "bytes": size_bytes, "done": 0}
    assert found["suffixes"] == {".jpg": 5, "none": 1}
    assert found["sample"] == {"sources": 6, "images": 4, "failed": 1, "skipped": 1}
    assert found["sample_errors"] == {"Truncated": 1, "Text": 1}
    estimate = found["estimate"]
    assert (estimate["images"], estimate["megapixels"]) == (4, 0.08)
    assert estimate["seconds_per_image"] > 0 and 0 < estimate["output_bytes"] < 1e6 < estimate["free_bytes"]
    assert not (library.parent / "out").exists()
    smaller = planned(style_file, library, "--max-size-px", "100", capsys=capsys)
    assert smaller["estimate"]["megapixels"] == 0.02


def test_the_text_for_people(style_file: Path, library: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    words = ["stylize", "--model", style_file, "--input", library, "--out", tmp_path / "out", "--dry-run"]
    assert main([str(word) for word in words]) == DONE
    said = capsys.readouterr().out.splitlines()
    assert said[0].endswith(f"{library} -> {tmp_path / 'out'} (nothing is written)")
    assert [line.partition(":")[0] for line in said[1:]] == [
        *("sources", "suffixes", "sample", "images", "speed", "time", "disk"),
    ]
    assert said[3].startswith("sample:   6 decoded: 4 images, 1 damaged, 1 no images (1 x T")


def test_a_committed_run_and_an_incremental_one(style_file: Path, library: Path, capsys: pytest.CaptureFixture[str]):
    commit(style_file, library)
    found = planned(style_file, library, capsys=capsys)
    assert found["is_already_committed"] and found["counts"]["ok"] == 4
    (library / "new.jpg").write_bytes(image_bytes(30, 30))
    found = planned(style_file, library, "--incremental", capsys=capsys)
    assert (found["counts"]["sources"], found["counts"]["done"]) == (1, 6)
    assert found["sample"]["images"] == 1
    found = planned(style_file, library, "--retry-failed", capsys=capsys)
    assert found["counts"]["sources"] == 1


def test_a_run_that_was_stopped(style_file: Path, library: Path, capsys: pytest.CaptureFixture[str]):
    run = prepare(config_of(style_file, library, run_id="half"))
    twins = TwinFinder()
    rows = [plan_row(twins.add(found)) for found in find_sources(Storage(), str(library))]
    write_shard(Storage(), run.layout, 0, make_table(rows[:4], PLAN_SCHEMA))
    (library / "zz.jpg").write_bytes(image_bytes(30, 30))  # planning had not come so far
    write_pending(Storage(), run.layout, 0, [row(run.layout, rows[0]["key"], run.identity.styles[0].name)])
    found = planned(style_file, library, "--run-id", "half", capsys=capsys)
    assert (found["counts"]["sources"], found["counts"]["done"]) == (6, 1)


def test_what_the_run_would_refuse_is_refused(
    style_file: Path, library: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    prepare(config_of(style_file, library, run_id="mine"))
    for source, flags in ((library, ["--run-id", "mine", "--quality", "7"]), (tmp_path / "nothing", [])):
        words = ["stylize", "--model", style_file, "--input", source, "--out", tmp_path / "out", "--dry-run", *flags]
        assert main([str(word) for word in words]) == WRONG_USE
        assert capsys.readouterr().err.count("\n") == 1
