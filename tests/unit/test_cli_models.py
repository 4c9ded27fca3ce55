"""``stylemill models`` as its users type it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from jobs.cli import DONE, WRONG_USE, main
from tests.unit.exchange.foreign import gordicaleksa_checkpoint


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "candy.pth"
    torch.save(gordicaleksa_checkpoint(), path)
    return path


def test_a_checkpoint_is_imported_and_its_history_told(checkpoint: Path, tmp_path: Path, capfd):
    assert main(["models", "import", "--from", str(checkpoint), "--out", str(tmp_path / "styles")]) == DONE
    lines = capfd.readouterr().out.splitlines()
    assert lines[0].startswith(f"{checkpoint} is a checkpoint of gordicaleksa/pytorch-nst-feedforward, sha256 ")
    assert "  style_weight: 400000.0" in lines
    assert lines[-1].startswith("candy@")
    assert (tmp_path / "styles" / "style.safetensors").exists()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "from='': is missing"),
        (["--from", "absent.pth", "--out", "o"], "from='absent.pth': does not exist"),
        (["--from", __file__, "--out", "o"], "is no checkpoint, or a damaged one"),
        (["--from", "a.pth", "--out", "o", "--name", "../up"], "name='../up': is no folder name"),
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
        (["--from", str(checkpoint), "--to", "tflite", "--out", "o"], "to='tflite': is not a choice"),
        (["--from", "registry:waves", "--out", "o"], "registry=None: is needed for registry:waves"),
    ):
        assert main(["models", "export", *arguments]) == WRONG_USE
        assert complaint in capfd.readouterr().err
