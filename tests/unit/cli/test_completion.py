"""Completion scripts, in the shells that read them."""

from __future__ import annotations

import contextlib
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from stylemill.cli.completion import build_tree
from stylemill.cli.main import DONE, VERBS, main


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the script of each shell, named after it."""
    folder = tmp_path_factory.mktemp("completion")
    for shell in ("bash", "zsh", "fish"):
        with (folder / shell).open("w") as file, contextlib.redirect_stdout(file):
            assert main(["completion", shell]) == DONE
    return folder


def complete(scripts: Path, *words: str, cwd: Path | None = None) -> list[str]:
    """Return what bash offers for the last of some words."""
    line = (
        f"source {scripts}/bash; COMP_WORDS=({shlex.join(words)}); COMP_CWORD={len(words) - 1}; COMP_LINE=x;"
        'compopt() { :; }; _shtab_stylemill stylemill "${COMP_WORDS[-1]}" "${COMP_WORDS[-2]}"; '
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    answer = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True, cwd=cwd)
    assert not answer.stderr
    return answer.stdout.split()


def test_bash_completes_commands_and_subcommands(scripts: Path):
    assert set(VERBS) <= set(complete(scripts, "stylemill", ""))
    assert complete(scripts, "stylemill", "styl") == ["stylize", "styles"]
    assert set(complete(scripts, "stylemill", "manifest", "")) >= {"verify", "summary", "repair", "gc"}
    assert complete(scripts, "stylemill", "submit", "styl") == ["stylize"]


def test_bash_completes_flags_and_the_choices_of_their_values(scripts: Path, tmp_path: Path):
    assert complete(scripts, "stylemill", "stylize", "--preserve-c") == ["--preserve-color"]
    assert set(complete(scripts, "stylemill", "stylize", "--json")) == {"--json", "--json-lines"}
    assert complete(scripts, "stylemill", "stylize", "--precision", "") == ["auto", "float32", "bfloat16"]
    assert complete(scripts, "stylemill", "train", "--preset", "qui") == ["quick"]
    assert complete(scripts, "stylemill", "submit", "stylize", "--device", "") == ["cpu", "cuda"]
    (tmp_path / "photos").mkdir()
    (tmp_path / "phone.safetensors").touch()
    found = complete(scripts, "stylemill", "stylize", "--model", "ph", cwd=tmp_path)
    assert sorted(found) == ["phone.safetensors", "photos"]
    assert complete(scripts, "stylemill", "manifest", "verify", "photo", cwd=tmp_path) == ["photos"]


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb not in ("manifest", "models", "styles", "jobs")])
def test_every_flag_of_help_is_in_the_tree(verb: str, capsys: pytest.CaptureFixture[str]):
    assert main([verb, "--help"]) == DONE
    flags = set(re.findall(r"^  (--[a-z][\w.-]*)", capsys.readouterr().out, flags=re.MULTILINE))
    subparsers = next(action for action in build_tree()._actions if action.nargs == "A...")
    known = set(subparsers.choices[verb]._option_string_actions)  # type: ignore[index]
    assert {"--config", "--print-config"} < flags <= known and "--json" in known


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_accepts_its_script(scripts: Path, shell: str):
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"needs {shell}")
    subprocess.run([program, "-n", scripts / shell], check=True, capture_output=True)


def test_another_shell_is_wrong_use(capsys: pytest.CaptureFixture[str]):
    assert main(["completion", "tcsh"]) == 2
    assert capsys.readouterr().err == (
        "stylemill: shell='tcsh': is not one of the choices; use one of bash, zsh, fish\n"
    )
