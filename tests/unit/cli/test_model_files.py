"""``stylemill models merge|split|rename|drop|show`` on files of several styles."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from stylemill.cli.main import DONE, WRONG_USE, main
from stylemill.style_file import style_names
from stylemill.style_model import to_bytes
from tests.drawn import image_bytes, style_model
from tests.unit.test_style_file import merged, relatives


@pytest.fixture
def many(tmp_path: Path) -> Path:
    path = tmp_path / "many.safetensors"
    path.write_bytes(merged(*relatives("wave", "ink", "gold")))
    return path


def styles_of(path: Path) -> list[str]:
    return style_names(path.read_bytes(), source=str(path))


def test_splitting_and_merging_are_inverse(many: Path, tmp_path: Path, capfd):
    assert main(["models", "split", str(many), "--out", str(tmp_path / "parts")]) == DONE
    assert "  ink@v1, sha256 " in capfd.readouterr().out
    parts = [str(tmp_path / "parts" / f"{name}.safetensors") for name in ("wave", "ink", "gold")]
    assert [Path(part).read_bytes() for part in parts] == [
        to_bytes(model) for model in relatives("wave", "ink", "gold")
    ]
    assert main(["models", "merge", *parts, "--out", str(tmp_path / "again.safetensors")]) == DONE
    assert (tmp_path / "again.safetensors").read_bytes() == many.read_bytes()


def test_one_style_of_a_file_is_merged(many: Path, tmp_path: Path):
    clay = tmp_path / "clay.safetensors"
    clay.write_bytes(to_bytes(replace(relatives("wave", "ink")[1], name="clay")))
    out = tmp_path / "two.safetensors"
    assert main(["models", "merge", f"{many}#gold", str(clay), "--out", str(out)]) == DONE
    assert styles_of(out) == ["gold", "clay"]


def test_a_style_is_renamed_in_place_or_into_another_file(many: Path, tmp_path: Path):
    out = tmp_path / "other.safetensors"
    assert main(["models", "rename", str(many), "--style", "ink", "--to", "tusche", "--out", str(out)]) == DONE
    assert (styles_of(many), styles_of(out)) == (["wave", "ink", "gold"], ["wave", "tusche", "gold"])
    assert main(["models", "rename", str(many), "--style", "ink", "--to", "tusche"]) == DONE
    assert many.read_bytes() == out.read_bytes()
    alone = tmp_path / "alone.safetensors"
    alone.write_bytes(to_bytes(style_model()))
    assert main(["models", "rename", str(alone), "--to", "sea"]) == DONE
    assert styles_of(alone) == ["sea"]


def test_styles_are_dropped(many: Path):
    assert main(["models", "drop", str(many), "--style", "wave", "--style", "gold"]) == DONE
    assert many.read_bytes() == to_bytes(relatives("wave", "ink")[1])


def test_the_styles_of_a_file_are_listed_and_one_is_shown(many: Path, capfd):
    assert main(["models", "show", str(many)]) == DONE
    lines = capfd.readouterr().out.splitlines()
    assert lines[1].startswith("styles      3, each shown by: stylemill models show ")
    assert [line.split("@")[0].strip() for line in lines[2:]] == ["wave", "ink", "gold"]
    assert main(["models", "show", f"{many}#ink"]) == DONE
    assert "style       ink, version v1" in capfd.readouterr().out


def test_a_photo_is_painted_in_all_styles_in_one_or_in_a_mixture(many: Path, tmp_path: Path, monkeypatch):
    (tmp_path / "photo.jpg").write_bytes(image_bytes(40, 60))
    monkeypatch.chdir(tmp_path)
    paint = ["paint", "photo.jpg", "--model", str(many)]
    assert main(paint) == DONE
    assert main([*paint, "--style", "ink", "--out", "ink.jpg"]) == DONE
    assert main([*paint, "--style", "wave:0.5,ink:0.5", "--sheet", "sheet.png"]) == DONE
    found = {path.name for path in tmp_path.iterdir() if path.suffix in (".jpg", ".png")}
    assert found == {
        "photo.jpg", "photo-wave.jpg", "photo-ink.jpg", "photo-gold.jpg", "ink.jpg", "photo-wave-0.5-ink-0.5.jpg",
        "sheet.png",
    }  # fmt: skip
    assert (tmp_path / "ink.jpg").read_bytes() == (tmp_path / "photo-ink.jpg").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["merge", "{many}"], "--out is required"),
        (["merge", "{many}", "--out", "{folder}/styles"], "does not end in .safetensors"),
        (["merge", "{many}", "{many}", "--out", "{folder}/o.safetensors"], "is given twice"),
        (["merge", "{many}", "{many}#ink", "--out", "{folder}/o.safetensors"], "has a style 'ink' too"),
        (["merge", "{folder}/absent.safetensors", "--out", "{folder}/o.safetensors"], "does not exist"),
        (["split", "{folder}/clay.safetensors"], "--out is required"),
        (["rename", "{many}", "--to", "sea"], "--style is required: {many} holds wave, ink, gold"),
        (["rename", "{many}", "--style", "clay", "--to", "sea"], "is not in {many}, which has wave, ink, gold"),
        (["rename", "{many}", "--style", "ink", "--to", "wave"], "is another style of {many}"),
        (["rename", "{many}", "--style", "ink", "--to", "../up"], "cannot name a folder"),
        (["rename", "{many}", "--style", "ink", "--to", "a:b"], "names have no # : ,"),
        (["rename", "registry:wave", "--to", "sea"], "is a version in a registry, which never changes"),
        (["drop", "{many}", "--style", "clay"], "is not in {many}"),
        (["drop", "{many}", "--style", "wave", "--style", "ink", "--style", "gold"], "delete the file instead"),
    ],
)
def test_mistakes_are_one_line_and_change_nothing(arguments, complaint: str, many: Path, tmp_path: Path, capfd):
    (tmp_path / "clay.safetensors").write_bytes(to_bytes(style_model("clay", seed=5)))
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    names = {"many": many, "folder": tmp_path}
    assert main(["models", *(argument.format(**names) for argument in arguments)]) == WRONG_USE
    captured = capfd.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    assert complaint.format(**names) in captured.err
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_all_styles_are_exported_as_one_graph_or_one_of_them(many: Path, tmp_path: Path, capfd):
    assert main(["models", "export", str(many), "--to", "onnx", "--out", str(tmp_path / "all.onnx")]) == DONE
    assert "3 styles as onnx" in capfd.readouterr().out
    assert main(["models", "export", f"{many}#ink", "--to", "onnx", "--out", str(tmp_path / "ink.onnx")]) == DONE
    assert "ink@v1 as onnx" in capfd.readouterr().out
    assert main(["models", "export", str(many), "--to", "torchscript", "--out", str(tmp_path / "a.pt")]) == WRONG_USE
    assert "holds 3 styles: wave, ink, gold; choose one" in capfd.readouterr().err


def test_all_styles_of_a_file_get_the_look_of_a_library(many: Path, tmp_path: Path, capfd):
    (tmp_path / "photos").mkdir()
    for seed in range(3):
        (tmp_path / "photos" / f"{seed}.jpg").write_bytes(image_bytes(40, 60, seed))
    out = tmp_path / "look.safetensors"
    look = ["models", "look", str(many), "--content", str(tmp_path / "photos"), "--out", str(out)]
    assert main(look) == DONE
    assert "the look of 3 photographs" in capfd.readouterr().out
    assert styles_of(out) == ["wave", "ink", "gold"]
    before = out.read_bytes()
    assert main(look) == DONE and out.read_bytes() == before
    assert main(["models", "look", str(out), "--content", str(tmp_path / "photos"), "--out", str(out)]) == WRONG_USE
    assert "has batch norms" in capfd.readouterr().err
    (tmp_path / "words").mkdir()
    assert main([*look[:4], str(tmp_path / "words"), *look[5:]]) == WRONG_USE
    assert capfd.readouterr().err.startswith("stylemill: content=")
