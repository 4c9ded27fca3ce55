"""``stylemill styles`` on the command line, and runs that use a registry."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from stylemill.cli.main import DONE, WRONG_USE, main
from stylemill.style_model import to_bytes
from stylemill.stylizing.config import StylizeConfig
from stylemill.stylizing.preflight import prepare
from tests.drawn import image_bytes, style_model


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A registry with the versions a and b, a being the champion; the environment names it."""
    monkeypatch.setenv("STYLEMILL_REGISTRY", str(tmp_path / "registry"))
    for version in "ab":
        path = tmp_path / f"{version}.safetensors"
        path.write_bytes(to_bytes(replace(style_model(seed=ord(version)), version=version)))
        promote = ["--promote"] if version == "a" else []
        assert main(["styles", "add", str(path), *promote, "--note", f"note {version}"]) == DONE
    return tmp_path / "registry"


def test_the_life_of_a_style(registry: Path, capfd: pytest.CaptureFixture[str]):
    capfd.readouterr()
    assert main(["styles", "promote", "waves@b", "--reason", "rounder strokes"]) == DONE
    assert main(["styles", "rollback", "waves", "--reason", "too round"]) == DONE
    assert main(["styles", "delete", "waves@b"]) == DONE
    assert main(["styles", "list"]) == DONE
    assert main(["styles", "show", "waves"]) == DONE
    captured = capfd.readouterr()
    assert captured.err == ""
    lines = captured.out.splitlines()
    assert lines[:3] == [
        "champion of waves: a -> b",
        "champion of waves: b -> a",
        "waves@b was deleted; its record and history remain",
    ]
    assert lines[4].split()[:2] == ["waves", "a"]
    assert lines[5].startswith("* waves@a") and lines[5].endswith("note a")
    assert [line.partition(" by ")[0].split("] ")[-1].split(": ")[-1] for line in lines[6:]] == [
        "none -> a",
        "a -> b",
        "b -> a",
    ]
    assert lines[7].endswith("rounder strokes") and "rolled back" in lines[8]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "nobody"], "style='nobody': is not in this registry"),
        (["promote", "waves"], "has no version"),
        (["promote", "waves@z"], "style='waves@z': is not in this registry"),
        (["delete", "waves@a"], "is the champion"),
        (["rollback", "waves"], "has no earlier champion"),
        (["add", "missing.safetensors"], "model="),
        (["fly"], "unknown command 'styles fly'; use one of add, list, show, promote, rollback, delete"),
        ([], "styles needs a subcommand: add, list, show, promote, rollback, delete"),
        (["list", "--registry", __file__], "holds no registry"),
        (["add", "--registry", __file__, "--model", "STYLE"], "registry="),
    ],
)
def test_wrong_use_is_one_line(
    registry: Path, style_file: Path, arguments: list[str], message: str, capfd: pytest.CaptureFixture[str]
):
    capfd.readouterr()
    assert main(["styles", *(str(style_file) if word == "STYLE" else word for word in arguments)]) == WRONG_USE
    (line,) = capfd.readouterr().err.splitlines()
    assert message in line


def test_a_run_pins_the_version_that_its_reference_meant(registry: Path, tmp_path: Path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(image_bytes(20, 20))

    def versions(reference: str) -> list[str]:
        config = StylizeConfig(model=(reference,), input=str(tmp_path / "in"), out=str(tmp_path / "out"))
        return [style.version for style in prepare(config).identity.styles]

    assert versions("registry:waves@b") == ["b"]
    assert versions("registry:waves") == ["a"]
    main(["styles", "promote", "waves@b"])
    assert versions("registry:waves") == ["b"]


def test_champion_and_candidate_are_measured_and_compared_by_reference(
    registry: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    (tmp_path / "in").mkdir()
    for seed in range(2):
        (tmp_path / "in" / f"{seed}.jpg").write_bytes(image_bytes(70, 70, seed=seed))
    (tmp_path / "style.png").write_bytes(image_bytes(80, 96, seed=9, format="PNG"))
    judged = ["--style-image", str(tmp_path / "style.png"), "--style-size-px", "64", "--size-px", "64"]
    places = ["--content", str(tmp_path / "in"), "--out", str(tmp_path / "measured")]
    models = ["--model", "registry:waves", "--model", "registry:waves@b"]
    assert main(["evaluate", *models, *places, *judged]) == DONE
    named = ["--candidate", "registry:waves@b", "--champion", "registry:waves"]
    capfd.readouterr()
    main(["compare", "--evaluation", str(tmp_path / "measured"), *named, "--resamples", "999"])
    printed = capfd.readouterr()
    assert printed.err == "" and printed.out.startswith("total_loss: waves-a ") and ", waves-b " in printed.out
    assert main(["compare", "--evaluation", str(tmp_path / "measured"), "--champion", "registry:waves@z"]) == WRONG_USE
    assert "is not in this registry" in capfd.readouterr().err


def test_a_rollback_is_an_outcome_for_machines(registry: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    main(["styles", "promote", "waves@b"])
    assert main(["styles", "rollback", "waves", "--out", str(tmp_path / "retraining"), "--reason", "too round"]) == DONE
    (file,) = (tmp_path / "retraining" / "outcomes").iterdir()
    outcome = json.loads(file.read_text())
    kept = {name: outcome[name] for name in ("decision", "champion", "candidate", "previous_champion", "reason")}
    assert kept == {
        "decision": "rolled_back", "champion": "a", "candidate": "b", "previous_champion": "b", "reason": "too round",
    }  # fmt: skip
    assert outcome["evidence"]["sample_size"] == 0
