"""Configs from YAML files and flags, and back."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stylemill.cli.arguments import add_flags, make_parser
from stylemill.config import (
    digest,
    from_flags,
    from_mapping,
    inline,
    parse_size,
    parse_yaml,
    to_mapping,
    to_yaml,
)
from stylemill.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Paint:
    colour: str = "red"
    """Of the paint."""
    num_layers: int = 1
    """How thick."""


@dataclass(frozen=True, kw_only=True)
class Store:
    endpoint_url: str | None = None
    """Where."""
    timeout_s: float = 30.0
    """How long."""


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
    format: Literal["same", "png"] = "same"
    """Of the result."""
    fast: bool = False
    """Hurry."""
    workers: str = "1"
    """N or MIN:MAX."""
    paint: Paint = inline(Paint)  # noqa: RUF009 (a field)
    store: Store = field(default_factory=Store)

    def __post_init__(self) -> None:
        if self.steps is not None and self.steps < 1:
            raise ConfigError("steps", self.steps, "is below 1", "write a whole number from 1")


def parsed(*arguments: str, file: str = "") -> Job:
    parser = make_parser("test", "a test")
    add_flags(parser, Job)
    return from_flags(Job, vars(parser.parse_args(arguments)), parse_yaml(file, source="file.yaml"))


def problem(*arguments: str, file: str = "") -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        parsed(*arguments, file=file)
    assert "\n" not in str(caught.value)
    return caught.value


def test_flags_have_dashes_and_dots():
    job = parsed("--name", "x", "--learning-rate", "2", "--num-layers", "3", "--store.endpoint-url", "http://h")
    assert (job.learning_rate, job.paint.num_layers, job.store.endpoint_url) == (2.0, 3, "http://h")


def test_repeated_list_flags_append_to_the_files_list():
    assert parsed("--name", "x", "--models", "a", "--models", "b").models == ("a", "b")
    job = parsed("--name", "x", "--models", "c", "--models", "d", file="models: [a, b]")
    assert job.models == ("a", "b", "c", "d")


def test_one_word_in_the_file_is_a_list_of_one():
    assert parsed("--name", "x", file="models: a b").models == ("a b",)


def test_flags_override_the_file():
    job = parsed("--name", "x", "--steps", "7", file="{steps: 5, learning_rate: 0.5, name: y}")
    assert (job.name, job.steps, job.learning_rate) == ("x", 7, 0.5)


@pytest.mark.parametrize("text", ["1:4", "007", "1e3", "yes", "null", "2026-01-01", "0x10", "=", "~", "1_000"])
def test_text_stays_text_in_yaml_and_in_flags(text: str):
    assert parsed("--name", "x", "--workers", text).workers == text
    assert parsed("--name", "x", file=f"workers: {text}").workers == text
    assert parsed("--name", "x", file=f"models: [{text}, {text}]").models == (text, text)


@pytest.mark.parametrize("text", ["1e-3", "0.001", ".001", "1E-03"])
def test_every_spelling_of_a_number_is_a_number(text: str):
    assert parsed("--name", "x", "--learning-rate", text).learning_rate == 0.001
    assert parsed("--name", "x", file=f"learning_rate: {text}").learning_rate == 0.001


@pytest.mark.parametrize("text", ["5.0", "five", "", "1e3", "0x10", "5 6"])
def test_whole_numbers_must_be_whole(text: str):
    assert problem("--name", "x", "--num-layers", text).field == "num_layers"
    assert problem("--name", "x", file=f"num_layers: '{text}'").field == "num_layers"


@pytest.mark.parametrize("text", ["true", "True", "yes", "on", "1"])
def test_forms_of_true(text: str):
    assert parsed("--name", "x", "--fast", text).fast is True
    assert parsed("--name", "x", file=f"fast: {text}").fast is True


@pytest.mark.parametrize("text", ["false", "FALSE", "no", "off", "0"])
def test_forms_of_false(text: str):
    assert parsed("--name", "x", "--fast", text, file="fast: true").fast is False
    assert parsed("--name", "x", file=f"fast: {text}").fast is False


def test_a_bare_flag_is_true_and_nonsense_is_not():
    assert parsed("--fast", "--name", "x").fast is True
    assert problem("--name", "x", "--fast", "maybe").field == "fast"


@pytest.mark.parametrize("text", ["null", "~", "None", ""])
def test_forms_of_none(text: str):
    assert parsed("--name", "x", "--steps", text, file="steps: 4").steps is None
    assert parsed("--name", "x", file=f"steps: {text}").steps is None


def test_choices():
    assert parsed("--name", "x", "--format", "png").format == "png"
    assert "same, png" in problem("--name", "x", "--format", "gif").cure


def test_unknown_fields_come_with_a_suggestion():
    error = problem("--name", "x", file="learning_rat: 1")
    assert error.field == "learning_rat" and error.cure == "did you mean learning_rate?"
    nested = problem("--name", "x", file="store: {endpoint_ulr: 1}")
    assert (nested.field, nested.cure) == ("store.endpoint_ulr", "did you mean store.endpoint_url?")
    assert "num_layers" in problem("--name", "x", file="zzzzzz: 1").cure


def test_dashes_in_the_file_are_underscores():
    assert parsed("--name", "x", file="learning-rate: 3").learning_rate == 3


def test_nested_and_inline_groups_in_the_file():
    job = parsed("--name", "x", file="colour: blue\nstore:\n  timeout_s: 4\n  endpoint_url: ~\n")
    assert job.paint.colour == "blue" and job.store == Store(timeout_s=4.0)


def test_a_required_field_is_named_with_its_flag():
    assert problem().field == "name"
    assert str(problem()).startswith("--name is required; ")


def test_the_checks_of_the_config_run():
    assert problem("--name", "x", "--steps", "0").field == "steps"


@pytest.mark.parametrize(
    "text",
    ["[1, 2]", "just text", "a: [", "a: b: c", "\x00", "? [a, b]\n: c", "a: !!python/object:os.system x", "- x"],
)
def test_text_that_is_not_a_mapping_is_refused_in_one_line(text: str):
    error = problem("--name", "x", file=text)
    assert error.field in ("config", "('a', 'b')", "['a', 'b']")


def test_an_empty_file_is_an_empty_mapping():
    for text in ("", "# nothing\n", "---\n"):
        assert parse_yaml(text, source="f") == {}


@pytest.mark.parametrize("text", ["models: &loop [*loop]", "a: &loop {b: *loop}", "a: " + "[" * 3000])
def test_recursive_yaml_is_refused(text: str):
    assert problem("--name", "x", file=text).field in ("config", "a", "models")


@pytest.mark.parametrize(
    ("text", "twice"),
    [
        ("steps: 5\nsteps: 6", "steps"),
        ("learning-rate: 5\nlearning_rate: 6", "learning_rate"),
        ("store: {timeout_s: 1, timeout_s: 2}", "timeout_s"),
        ("store: {timeout_s: 1}\nstore.timeout_s: 2", "store.timeout_s"),
    ],
)
def test_a_field_that_is_given_twice_is_refused(text: str, twice: str):
    assert twice in str(problem("--name", "x", file=text)) and "twice" in str(problem("--name", "x", file=text))


def test_aliases_that_multiply_are_refused_at_once():
    bomb = "a0: &a0 {x: y}\n" + "\n".join(f"a{n}: &a{n} {{p: *a{n - 1}, q: *a{n - 1}}}" for n in range(1, 60))
    assert "alias" in problem("--name", "x", file=bomb).problem


def test_a_group_of_fields_may_be_empty_and_is_no_value():
    assert parsed("--name", "x", file="store:\n").store == Store()
    error = problem("--name", "x", file="store: 5")
    assert error.field == "store" and "timeout_s" in error.cure


def test_a_long_value_is_shown_in_part():
    assert len(str(problem("--name", "x", "--steps", "9" * 5000 + "x"))) < 1000


@pytest.mark.parametrize("text", ["models: [{a: b}]", "models: [[a]]", "models: {a: b}", "name: [a]", "steps: [1]"])
def test_the_wrong_shape_is_refused(text: str):
    assert problem("--name", "x", file=text).field.split(".")[0] in ("models", "name", "steps")


def test_mappings_may_hold_typed_values():
    job = from_mapping(Job, {"name": "x", "steps": 3, "fast": True, "models": ["a"], "learning_rate": 0.5})
    assert (job.steps, job.fast, job.models, job.learning_rate) == (3, True, ("a",), 0.5)


texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=30)
jobs = st.builds(
    Job,
    name=texts,
    models=st.lists(texts, max_size=3).map(tuple),
    learning_rate=st.floats(allow_nan=False),
    steps=st.none() | st.integers(1),
    format=st.sampled_from(["same", "png"]),
    fast=st.booleans(),
    workers=texts,
    paint=st.builds(Paint, colour=texts, num_layers=st.integers()),
    store=st.builds(
        Store,
        endpoint_url=st.none() | texts.filter(lambda text: text.strip().lower() not in ("", "null", "none", "~")),
        timeout_s=st.floats(allow_nan=False),
    ),
)


@given(jobs)
def test_yaml_gives_back_an_equal_config(job: Job):
    assert from_mapping(Job, parse_yaml(to_yaml(job), source="f")) == job


@given(jobs)
def test_mappings_give_back_an_equal_config(job: Job):
    assert from_mapping(Job, to_mapping(job)) == job


def test_not_a_number_is_written_and_read():
    job = from_mapping(Job, parse_yaml(to_yaml(Job(name="x", learning_rate=math.nan)), source="f"))
    assert math.isnan(job.learning_rate)


@pytest.mark.parametrize(
    ("text", "size"),
    [("5GiB", 5 << 30), ("512MB", 512_000_000), ("1000", 1000), (" 2 kib ", 2048), ("7B", 7), ("1e3", 1000)],
)
def test_sizes(text: str, size: int):
    assert parse_size("max", text) == size


@pytest.mark.parametrize("text", ["", "GiB", "5 elephants", "-1", "0", "nan", "inf", "0.5", "5GiBGiB", "5BKB", "1 2"])
def test_text_that_is_not_a_size(text: str):
    with pytest.raises(ConfigError) as caught:
        parse_size("max", text)
    assert caught.value.field == "max"


@given(st.dictionaries(texts, st.integers() | texts | st.none(), max_size=5))
def test_a_digest_does_not_depend_on_the_order_of_keys(values: dict[str, Any]):
    assert digest(values) == digest(dict(reversed(values.items())))
    assert len(digest(values)) == 64
    assert digest({**values, "one more": 1}) != digest(values)
