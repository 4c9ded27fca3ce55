"""The generated reference: every command and flag has its place, and nothing that users set is left out."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from stylemill.cli.main import VERBS, main
from stylemill.training.config import PRESETS

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference", ROOT / "docs/_build/reference.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # A dataclass looks its own module up.
    sys.modules["reference"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("verb", VERBS)
def test_every_flag_of_help_is_on_the_page(reference: ModuleType, verb: str, capsys: pytest.CaptureFixture[str]):
    page = reference.command_page(verb)
    for flags in reference.accepted(verb):
        assert main([*flags.command.split(), "--help"]) == 0
        named = set(re.findall(r"--[a-z][a-z0-9.-]+", "\n".join(_option_lines(capsys.readouterr().out))))
        assert len(named) >= 3
        assert named - {"--config", "--print-config", "--help"} <= set(re.findall(r"--[a-z][a-z0-9.-]+", page))


def _option_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("  --")]


def test_defaults_choices_presets_and_positional_arguments(reference: ModuleType):
    stylize, train = reference.command_page("stylize"), reference.command_page("train")
    assert "| `--input` | *required* |" in stylize
    assert "`--preserve-color` | `false` |" in stylize
    assert "One of `same`, `jpeg`" in stylize
    assert all(f"| `{name}` |" in train for name in PRESETS)
    assert "stylemill manifest verify URI [" in reference.command_page("manifest")
    assert "Also as the argument `URI`." in reference.command_page("manifest")


def test_the_overview_has_every_command_exit_code_and_environment_variable(reference: ModuleType):
    overview = reference.pages()["reference/index.md"]
    assert all(f"[{verb}]({verb}.md)" in overview for verb in VERBS)
    assert all(f"| {code} |" in overview for code in (0, 1, 2, 3, 130))
    used = {
        name
        for path in (ROOT / "pipeline").rglob("*.py")
        for name in re.findall(r'["{](STYLEMILL_[A-Z_]+)', path.read_text(encoding="utf-8"))
    }
    assert used >= {"STYLEMILL_LOG", "STYLEMILL_PYTHON"}
    assert used <= set(reference.ENVIRONMENT)
