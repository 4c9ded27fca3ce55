"""Flags from configs: names, mistakes, help, and ``--print-config``."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass

import pytest

from stylemill.cli.arguments import Subcommand, add_flags, make_parser, parse, run_subcommand
from stylemill.config import field_docs
from stylemill.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Job:
    name: str
    """What it is called."""
    models: tuple[str, ...] = ()
    """Many of them."""
    learning_rate: float = 1e-3
    """Step size."""
    steps: int | None = None
    """At 100% speed."""
    fast: bool = False
    """Hurry."""


def message(*arguments: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(Job, "job", "", arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_underscores_in_flags_are_refused():
    wanted = "unknown option --learning_rate; did you mean --learning-rate?"
    assert message("--name", "x", "--learning_rate", "2") == wanted


def test_abbreviations_are_refused():
    assert message("--name", "x", "--learn", "2").startswith("unknown option --learn; ")


def test_a_mistyped_flag_comes_with_a_suggestion_and_a_stray_word_with_none():
    assert message("--name", "x", "--stesp=7") == "unknown option --stesp; did you mean --steps?"
    assert message("--name", "x", "--zzz") == "unknown option --zzz; see stylemill job --help"
    assert message("--name", "x", "stray") == (
        "unexpected argument 'stray'; see stylemill job --help; put a pattern such as '*.jpg' in quotes"
    )


def test_a_required_flag_and_a_flag_without_its_value():
    assert message() == "--name is required; give it on the command line or in the --config file"
    assert message("--name") == "argument --name: expected one argument; see stylemill job --help"
    assert message("--name", "x", "--steps", "abc") == "steps='abc': is not a whole number; write a whole number"


def test_a_required_flag_that_is_given_twice_is_refused_and_others_count_last():
    wanted = "--name is given twice; give it once; a pattern in quotes, such as 'photos/*.jpg', names many files"
    assert message("--name", "x", "--name", "y") == wanted
    found = parse(Job, "job", "", ["--name", "x", "--steps", "1", "--steps", "2", "--models", "a", "--models", "b"])
    assert found is not None and (found.steps, found.models) == (2, ("a", "b"))


def test_subcommands():
    subcommands = {"paint": Subcommand(does="Paints.", config=Job, run=lambda job: len(job.name), positional="name")}
    assert run_subcommand("do", subcommands, ["paint", "four"]) == 4
    for words, wanted in (
        ([], "do needs a subcommand: paint"),
        (["sell"], "unknown command 'do sell'; use one of paint"),
        (["paimt"], "unknown command 'do paimt'; did you mean 'paint'?"),
        (["--quiet"], "unknown option --quiet; options follow a command; see stylemill do --help"),
    ):
        with pytest.raises(ConfigError) as caught:
            run_subcommand("do", subcommands, words)
        assert str(caught.value) == wanted


def test_every_field_has_help():
    from stylemill.stylizing.config import StylizeConfig

    assert field_docs(Job)["steps"] == "At 100% speed."
    parser = make_parser("test", "a test")
    add_flags(parser, StylizeConfig)
    for action in parser._actions:
        assert action.help, action.dest


def test_help_prints_percent_signs_and_exits():
    parser = make_parser("test", "a test")
    add_flags(parser, Job)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), pytest.raises(SystemExit):
        parser.parse_args(["--help"])
    assert "100% speed" in " ".join(printed.getvalue().split())


def test_print_config_feeds_back(tmp_path, capsys):
    first, second = tmp_path / "one.yaml", tmp_path / "two.yaml"
    first.write_text("models: [a, '1:4']\nlearning_rate: inf\n")
    assert parse(Job, "job", "", ["--config", str(first), "--name", "é\n x", "--print-config"]) is None
    second.write_text(capsys.readouterr().out, encoding="utf-8")
    once = parse(Job, "job", "", ["--config", str(first), "--name", "é\n x"])
    assert once is not None and once.models == ("a", "1:4")
    assert parse(Job, "job", "", ["--config", str(second)]) == once


def test_the_usage_begins_with_what_is_required(capsys):
    assert parse(Job, "paint", "Paints.", ["--help"], positional="name") is None
    assert capsys.readouterr().out.startswith("usage: stylemill paint NAME [--config FILE.yaml] [--field value ...]\n")
    assert parse(Job, "paint", "Paints.", ["--help"]) is None
    assert capsys.readouterr().out.startswith("usage: stylemill paint --name NAME [--config FILE.yaml] [--field v")


def test_a_positional_argument_is_the_field(capsys):
    assert parse(Job, "job", "", ["x", "--fast"], positional="name") == Job(name="x", fast=True)
    assert parse(Job, "job", "", ["--help"], positional="name") is None
    assert "usage: stylemill job" in capsys.readouterr().out


@dataclass(frozen=True, kw_only=True)
class Many:
    photo: tuple[str, ...] = ()
    """Any number of them."""
    fast: bool = False
    """Hurry."""
    name: str | None = None
    """What it is called."""


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ([], Many()),
        (["a", "b"], Many(photo=("a", "b"))),
        (["a", "--name", "n", "b", "-"], Many(photo=("a", "b", "-"), name="n")),
        (["--fast", "a"], Many(photo=("a",), fast=True)),
        (["--fast", "no", "a"], Many(photo=("a",))),
        (["--fast"], Many(fast=True)),
        (["--photo", "b", "a"], Many(photo=("a", "b"))),
        (["--", "--fast"], Many(photo=("--fast",))),
    ],
)
def test_a_list_takes_any_number_of_words_among_the_flags(arguments: list[str], wanted: Many):
    assert parse(Many, "paint", "", arguments, positional="photo") == wanted


def test_the_usage_of_a_list_shows_that_it_takes_many(capsys: pytest.CaptureFixture[str]):
    assert parse(Many, "paint", "", ["--help"], positional="photo") is None
    assert "stylemill paint PHOTO... [--config" in capsys.readouterr().out
