"""``stylemill submit`` before anything is sent: the request, its id, and the plan of ``--dry-run``."""

from __future__ import annotations

import dataclasses
import importlib
import typing
from pathlib import Path

import pytest

from stylemill.cli.main import main as stylemill
from stylemill.cli.submit import SUBMITTABLE, build_request, main, size_text, split_arguments
from stylemill.errors import ConfigError
from stylemill.evaluation.config import JudgeConfig
from stylemill.submission.config import SubmitConfig

REMOTE = {"model": "s3://b/m.safetensors", "input": "s3://b/in/", "out": "s3://b/out"}
TEXT_FIELDS_WITHOUT_LOCATION = {
    *("name", "run_id", "num_workers", "content_cache", "max_memory", "loss_network", "device", "precision"),
    *("upsampling", "stages", "style", "style_by", "firing", "metric", "webhook", "content_layers", "style_layers"),
    *("judge.content_layers", "judge.style_layers"),
}


def words(**fields: str) -> list[str]:
    return [word for name, value in {**REMOTE, **fields}.items() for word in (f"--{name.replace('_', '-')}", value)]


def offline(*more: str) -> list[str]:
    """Arguments whose store refuses the connection at once."""
    return [*words(), "--storage.endpoint-url", "http://127.0.0.1:9", "--storage.retry-deadline-s", "0.1", *more]


@pytest.mark.parametrize("verb", SUBMITTABLE)
def test_every_text_field_is_listed_as_a_location_or_not(verb: str):
    module, _, name = SUBMITTABLE[verb].config_type.partition(":")
    config_type = getattr(importlib.import_module(module), name)
    hints = typing.get_type_hints(config_type)
    texts = {field.name for field in dataclasses.fields(config_type) if "str" in str(hints[field.name])}
    texts |= {field.name for field in dataclasses.fields(config_type) if hints[field.name] is str}
    if "judge" in hints:
        texts |= {f"judge.{field.name}" for field in dataclasses.fields(JudgeConfig) if "str" in field.type}
    assert texts - TEXT_FIELDS_WITHOUT_LOCATION == set(SUBMITTABLE[verb].locations)
    assert set(SUBMITTABLE[verb].resources) <= {field.name for field in dataclasses.fields(config_type)}


@pytest.mark.parametrize("name", ["model", "input", "out"])
@pytest.mark.parametrize("path", ["photos", "./photos/*.jpg", "/photos", "file:///photos", "FILE:///p", "memory://x"])
def test_local_paths_are_refused(name: str, path: str):
    with pytest.raises(ConfigError) as caught:
        build_request("stylize", words(**{name: path}), SubmitConfig())
    assert caught.value.field == name and "--shared-filesystem" in caught.value.cure


RETRAIN = ["--style-image=s3://b/a.jpg", "--content=s3://b/c", "--holdout=s3://b/h", "--out=s3://b/o"]


def test_a_retraining_may_be_submitted_again(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("STYLEMILL_REGISTRY", "s3://b/registry")
    request = build_request("retrain", [*RETRAIN, "--preset", "bold"], SubmitConfig())
    assert request is not None and request.is_repeatable and request.base_id.startswith("stylemill-retrain-")
    assert request.config.registry == "s3://b/registry" and request.config.style_weight == 3.0
    again = build_request("retrain", [*RETRAIN, "--preset", "bold", "--num-workers=4"], SubmitConfig())
    assert again is not None and again.base_id == request.base_id


def test_a_webhook_is_not_sent_where_everyone_could_read_it():
    with pytest.raises(ConfigError, match="STYLEMILL_WEBHOOK in the environment") as caught:
        build_request("retrain", [*RETRAIN, "--webhook=https://hooks.example/hunter2"], SubmitConfig())
    assert "hunter2" not in str(caught.value)


def test_an_evaluation_reserves_a_cpu_and_its_style_image_must_be_remote(tmp_path: Path):
    arguments = ["--model=s3://b/m", "--content=s3://b/c", "--out=s3://b/o"]
    request = build_request("evaluate", arguments, SubmitConfig())
    assert request is not None and request.driver_cpus == 1
    with pytest.raises(ConfigError, match="path of this machine"):
        build_request("evaluate", [*arguments, "--style-image=style.jpg"], SubmitConfig())


def test_presets_stand_in_for_defaults_in_a_job_too():
    arguments = ["--style-image=s3://b/a.jpg", "--content=s3://b/c", "--out=s3://b/o", "--preset=quick", "--steps=7"]
    request = build_request("train", arguments, SubmitConfig())
    assert request is not None and (request.config.width, request.config.steps) == (0.5, 7)


def test_shared_local_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, style_file: Path):
    monkeypatch.chdir(tmp_path)
    arguments = words(model=str(style_file), input="in/*.jpg", out="out")
    request = build_request("stylize", arguments, SubmitConfig(shared_filesystem=True))
    assert request is not None
    assert request.config.input == f"{tmp_path}/in/*.jpg" and request.config.out == f"{tmp_path}/out"
    assert f"input: {tmp_path}/in/*.jpg\n" in request.yaml()


@pytest.mark.parametrize(
    "uri", ["s3://key:hunter2@b/x", "https://h/x?X-Amz-Signature=hunter2", "abfs://c@a/x?sv=1&sig=hunter2"]
)
def test_a_location_with_a_credential_is_refused_and_not_shown(uri: str):
    with pytest.raises(ConfigError) as caught:
        build_request("stylize", words(input=uri), SubmitConfig())
    assert caught.value.field == "input" and "hunter2" not in str(caught.value)


def test_no_credential_of_the_environment_gets_into_a_request(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "hunter2")
    request = build_request("train", ["--style-image=s3://b/a.jpg", "--content=s3://b/c", "--out=s3://b/o"], SUBMIT)
    assert request is not None and "hunter2" not in request.yaml() + repr(request)


SUBMIT = SubmitConfig()


def train_id(*more: str) -> str:
    request = build_request("train", ["--style-image=s3://b/a.jpg", "--content=s3://b/c", *more], SUBMIT)
    assert request is not None
    return request.base_id


def test_the_id_depends_on_the_result_and_not_on_resources():
    same = {train_id("--out=s3://b/o"), train_id("--out=s3://b/o/"), train_id("--out=s3://b/o", "--num-workers=2")}
    assert len(same) == 1
    assert train_id("--out=s3://b/other") not in same and train_id("--out=s3://b/o", "--steps=3") not in same


def test_the_id_of_a_bulk_job_is_that_of_its_run(tmp_path: Path, style_file: Path):
    def request(*more: str, **fields: str):
        arguments = words(model=str(style_file), input=str(tmp_path), out=str(tmp_path / "out"), **fields)
        found = build_request("stylize", [*arguments, *more], SubmitConfig(shared_filesystem=True))
        assert found is not None
        return found

    plain = request()
    assert plain.base_id.startswith("stylemill-stylize-") and not plain.is_repeatable
    assert request("--num-actors=3").base_id == plain.base_id != request("--quality=70").base_id
    assert request("--incremental").is_repeatable and request("--incremental").base_id != plain.base_id
    named = request(run_id="monday")
    assert "monday" in named.base_id and named.base_id != request(run_id="monday", quality="70").base_id


def test_a_model_that_only_the_job_can_read_is_noted(capsys: pytest.CaptureFixture[str]):
    request = build_request("stylize", offline(), SUBMIT)
    assert request is not None and request.is_repeatable
    assert "only the job itself will check it" in capsys.readouterr().out


def test_a_model_that_does_not_exist_is_a_mistake(tmp_path: Path):
    arguments = words(model=str(tmp_path / "none"), input=str(tmp_path), out=str(tmp_path / "out"))
    with pytest.raises(ConfigError, match="does not exist"):
        build_request("stylize", arguments, SubmitConfig(shared_filesystem=True))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--wait", "train", "--wait"], (["--wait"], "train", ["--wait"])),
        (["--address", "train", "train"], (["--address", "train"], "train", [])),
        (["--address=x", "--dry-run", "true", "stylize"], (["--address=x", "--dry-run", "true"], "stylize", [])),
        (["manifest", "verify", "s3://b/x"], ([], "manifest verify", ["s3://b/x"])),
        (["--help"], (["--help"], "", [])),
        (["--print-config"], (["--print-config"], "", [])),
        (["--help", "demo"], (["--help"], "", [])),
    ],
)
def test_the_verb_divides_the_arguments(arguments: list[str], expected: tuple):
    assert split_arguments(arguments) == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "submit needs a command: train, retrain, stylize, "),
        (["--wait"], "submit needs a command: train, retrain, stylize, "),
        (["demo"], "unknown command 'submit demo'; use one of train, retrain, stylize, "),
        (["manifest", "verfy"], "unknown command 'submit manifest verfy'; did you mean 'manifest verify'?"),
        (["submit", "train"], "unknown command 'submit submit'; use one of train, "),
    ],
)
def test_what_cannot_be_submitted(arguments: list[str], message: str):
    with pytest.raises(ConfigError) as caught:
        main(arguments)
    assert str(caught.value).startswith(message)


def test_a_mistyped_flag_does_not_swallow_the_verb():
    with pytest.raises(ConfigError, match=r"^unknown option --adress; did you mean --address"):
        main(["--adress", "stylize"])


@pytest.fixture
def library(tmp_path: Path) -> Path:
    for number in range(7):
        path = tmp_path / "in" / str(number % 2) / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 1000)
    return tmp_path / "in"


def test_a_dry_run_prints_a_plan(tmp_path: Path, library: Path, style_file: Path, capsys: pytest.CaptureFixture[str]):
    command = ["submit", "--dry-run", "--shared-filesystem", "--price-per-hour", "3"]
    verb = ["stylize", "--model", str(style_file), "--input", str(library), "--out", str(tmp_path / "out")]
    assert stylemill([*command, *verb]) == 0
    printed = capsys.readouterr().out
    assert "sources:  7, 7.0 kB" in printed and "give --rate" in printed and "cost" not in printed
    assert stylemill([*command, "--rate", "0.001", *verb, "--num-actors", "2"]) == 0
    printed = capsys.readouterr().out
    assert "0.001 images/s of each, as given" in printed and "1.94 CPU-hours, at 3 each 5.83" in printed
    assert not (tmp_path / "out").exists()
    assert stylemill([*command, *verb[:-3], str(tmp_path / "none"), *verb[-2:]]) == 2
    assert capsys.readouterr().err.startswith("stylemill: input=")


def test_sizes():
    assert [size_text(size) for size in (0, 999, 1000, 2_500_000, 7 * 10**15)] == [
        *("0 bytes", "999 bytes", "1.0 kB", "2.5 MB", "7.0 PB"),
    ]
