"""What ``stylemill demo`` suggests at its end."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from stylemill.cli.demo import next_commands
from stylemill.cli.demo_pages import DemoLayout
from stylemill.cli.main import VERBS


def test_the_next_commands_name_the_demo_s_own_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    layout = DemoLayout(out=tmp_path / "my demo")
    commands = [shlex.split(command) for _, command in next_commands(layout, ".venv/bin/stylemill")]
    assert [words[0] for words in commands] == [".venv/bin/stylemill"] * 3
    assert [words[1] for words in commands] == ["paint", "stylize", "train"]
    assert all(words[1] in VERBS for words in commands)
    assert commands[0][-1] == commands[1][3] == "my demo/training/style.safetensors"
    assert "my demo/content" in commands[2]


def test_files_elsewhere_keep_their_whole_path(tmp_path: Path):
    layout = DemoLayout(out=tmp_path)
    ((_, command), *_) = next_commands(layout, "/opt/python")
    assert command == f"stylemill paint PHOTO.jpg --model {layout.model}"
