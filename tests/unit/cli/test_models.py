"""``stylemill models`` on the command line."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from stylemill.cli.main import DONE, WRONG_USE, main
from stylemill.style_model import to_bytes
from tests.drawn import style_model
from tests.unit.exchange.checkpoints import gordicaleksa_checkpoint


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "candy.pth"
    torch.save(gordicaleksa_checkpoint(), path)
    return path


def test_a_checkpoint_is_imported_and_its_history_printed(checkpoint: Path, tmp_path: Path, capfd):
    assert main(["models", "import", "--from", str(checkpoint), "--out", str(tmp_path / "styles")]) == DONE
    lines = capfd.readouterr().out.splitlines()
    assert lines[0].startswith(f"{checkpoint} is a checkpoint of gordicaleksa/pytorch-nst-feedforward, sha256 ")
    assert "  style_weight: 400000.0" in lines
    assert lines[-1].startswith("candy@")
    assert (tmp_path / "styles" / "style.safetensors").exists()


def test_a_teacher_is_shown_with_its_weight_also_where_that_is_the_default(tmp_path: Path, capfd):
    trained = {"config": {"style_image": "a.png", "content_weight": 1.0}, "teacher_sha256": "ab" * 32}
    path = tmp_path / "style.safetensors"
    path.write_bytes(to_bytes(replace(style_model(), metadata=trained)))
    assert main(["models", "show", str(path)]) == DONE
    assert "teacher     sha256 abababababab, weight 10.0\n" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "stylemill: --from is required; give the location of a checkpoint\n"),
        (["--from", "absent.pth", "--out", "o"], "from='absent.pth': does not exist"),
        (["--from", __file__, "--out", "o"], "is not a checkpoint, or is damaged"),
        (["--from", "a.pth", "--out", "o", "--name", "../up"], "name='../up': cannot name a folder"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(arguments, complaint, capfd):
    assert main(["models", "import", *arguments]) == WRONG_USE
    captured = capfd.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    assert complaint in captured.err


@pytest.mark.parametrize(
    ("to", "file"), [("onnx", "candy.onnx"), ("torchscript", "candy.pt"), ("safetensors", "candy.safetensors")]
)
def test_a_model_is_exported_and_checked(to: str, file: str, checkpoint: Path, tmp_path: Path, capfd):
    assert main(["models", "import", "--from", str(checkpoint), "--out", str(tmp_path / "styles")]) == DONE
    capfd.readouterr()
    model = tmp_path / "styles" / "style.safetensors"
    assert main(["models", "export", "--from", str(model), "--to", to, "--out", str(tmp_path / "for others")]) == DONE
    captured = capfd.readouterr()
    assert "0 to 255" in captured.out and "differs from the network by at most 0.0" in captured.out
    assert captured.err == ""
    assert (tmp_path / "for others" / file).stat().st_size > 100_000


def test_exporting_needs_a_style_model_and_a_known_format(checkpoint: Path, monkeypatch, capfd):
    monkeypatch.delenv("STYLEMILL_REGISTRY", raising=False)
    for arguments, complaint in (
        (["--from", str(checkpoint), "--out", "o"], "is not a style model"),
        (["--from", str(checkpoint), "--to", "tflite", "--out", "o"], "to='tflite': is not one of the choices"),
        (["--from", "registry:waves", "--out", "o"], "--registry is needed for registry:waves"),
    ):
        assert main(["models", "export", *arguments]) == WRONG_USE
        assert complaint in capfd.readouterr().err


def test_a_wrong_place_is_named_with_a_cure(checkpoint: Path, tmp_path: Path, capfd):
    assert main(["models", "import", "--from", str(checkpoint), "--out", str(tmp_path / "s")]) == DONE
    model = tmp_path / "s" / "style.safetensors"
    for arguments, complaint in (
        (["show", str(tmp_path)], "model="),
        (["export", str(model), "--out", f"{model}/deeper.onnx", "--to", "safetensors"], "out="),
        (["import", str(checkpoint), "--out", f"{checkpoint}/deeper"], "out="),
        (["import", str(model), "--out", str(tmp_path / "t")], "from="),
    ):
        capfd.readouterr()
        assert main(["models", *arguments]) == WRONG_USE
        (line,) = capfd.readouterr().err.splitlines()
        assert line.startswith(f"stylemill: {complaint}") and "weights_only" not in line


def test_a_model_shows_what_it_is_and_what_it_costs(checkpoint: Path, tmp_path: Path, monkeypatch, capfd):
    monkeypatch.setattr("stylemill.nn.speed.TRIAL_SIDE_PX", 64)
    styles = tmp_path / "styles"
    assert main(["models", "import", "--from", str(checkpoint), "--out", str(styles)]) == DONE
    (styles / "samples").mkdir()
    for step in (100, 250):
        (styles / "samples" / f"step-{step:08d}.jpg").write_bytes(b"")
    capfd.readouterr()
    assert main(["models", "show", str(styles / "style.safetensors")]) == DONE
    shown = {line[:12].strip(): line[12:] for line in capfd.readouterr().out.splitlines()}
    assert shown["style"].startswith("candy, version ")
    assert shown["sha256"] == hashlib.sha256((styles / "style.safetensors").read_bytes()).hexdigest()
    assert shown["imported"].startswith("from a checkpoint of gordicaleksa/pytorch-nst-feedforward")
    assert "style_weight 400000.0" in shown["notes"]
    assert shown["sample"].endswith("samples/step-00000250.jpg")
    assert float(shown["cost"].split(" s per megapixel")[0]) > 0
    assert "two kernels" in shown["fast form"] and "instance norm" in shown["not folded"]


def test_a_model_of_a_registry_is_shown_with_its_training(tmp_path: Path, monkeypatch, capfd):
    monkeypatch.setattr("stylemill.nn.speed.TRIAL_SIDE_PX", 64)
    monkeypatch.setenv("STYLEMILL_REGISTRY", str(tmp_path / "registry"))
    metadata = {
        "config": {"batch_size": 4, "crop_px": 256, "style_weight": 6.0},
        "steps": 500,
        "loss_tail": [1.0, None, 3.0],
        "trained_at": "2026-11-21T10:00:00+00:00",
    }
    (tmp_path / "a.safetensors").write_bytes(to_bytes(replace(style_model(), metadata=metadata)))
    assert main(["styles", "add", str(tmp_path / "a.safetensors"), "--promote"]) == DONE
    capfd.readouterr()
    assert main(["models", "show", "registry:waves"]) == DONE
    out = capfd.readouterr().out
    assert "500 steps of 4 crops of 256 px" in out and "2026-11-21" in out
    assert "2.0000, mean of the last 2 steps" in out


def test_a_model_without_metadata_is_shown(tmp_path: Path, monkeypatch, capfd):
    monkeypatch.setattr("stylemill.nn.speed.TRIAL_SIDE_PX", 64)
    (tmp_path / "a.safetensors").write_bytes(to_bytes(style_model()))
    assert main(["models", "show", str(tmp_path / "a.safetensors")]) == DONE
    out = capfd.readouterr().out
    assert "not recorded in the file" in out and "none next to the file" in out
    assert main(["models", "show"]) == WRONG_USE
