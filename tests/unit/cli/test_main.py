"""The command line: exit codes, help, and wrong use, which is one line on stderr before Ray starts."""

from __future__ import annotations

import io
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stylemill.cli.main import DONE, FAILED, VERBS, WRONG_USE, main, main_for_scheduler
from stylemill.errors import ConfigError
from tests.drawn import image_bytes

Check = Callable[..., str]


@pytest.fixture
def library(tmp_path: Path) -> Path:
    folder = tmp_path / "library"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(image_bytes(20, 30))
    return folder


@pytest.fixture
def refused(capfd: pytest.CaptureFixture[str]) -> Check:
    """Return a function that runs a wrong command and returns its one line on stderr."""

    def check(*arguments: object, field: str, exit_code: int = WRONG_USE) -> str:
        assert main([str(argument) for argument in arguments]) == exit_code
        captured = capfd.readouterr()
        lines = captured.err.splitlines()
        assert len(lines) == 1, captured.err
        assert captured.err.endswith("\n") and lines[0].startswith(f"stylemill: {field}")
        assert "Traceback" not in captured.err and "usage:" not in captured.err + captured.out
        if "ray" in sys.modules:
            assert not sys.modules["ray"].is_initialized()
        return lines[0]

    return check


def stylize(style: object, source: object, out: object, *more: object) -> tuple[object, ...]:
    return ("stylize", "--model", style, "--input", source, "--out", out, *more)


def test_no_verb_at_all(capsys: pytest.CaptureFixture[str]):
    assert main([]) == WRONG_USE
    assert main(["--help"]) == DONE
    assert main(["--version"]) == DONE
    assert "stylize" in capsys.readouterr().out


def test_unknown_verb(refused: Check):
    line = refused("styleize", field="unknown command")
    assert line == "stylemill: unknown command 'styleize'; did you mean 'stylize'?"
    assert "stylize" in refused("zzz", field="unknown command 'zzz'; use one of demo, ")
    assert refused("help", "zzz", field="unknown command 'zzz'") == refused("zzz", field="unknown")
    line = refused("--config", "x.yaml", "stylize", field="unknown option")
    assert line == "stylemill: unknown option --config; options follow a command; see stylemill --help"


def test_unknown_flag(refused: Check, style_file: Path, library: Path, tmp_path: Path):
    line = refused(*stylize(style_file, library, tmp_path / "out", "--colour", "blue"), field="unknown option")
    assert line == "stylemill: unknown option --colour; see stylemill stylize --help"
    line = refused(*stylize(style_file, library, tmp_path / "out", "blue"), field="unexpected argument")
    assert line == (
        "stylemill: unexpected argument 'blue'; see stylemill stylize --help; put a pattern such as '*.jpg' in quotes"
    )


def test_abbreviated_flag(refused: Check, style_file: Path, library: Path, tmp_path: Path):
    line = refused(*stylize(style_file, library, tmp_path / "out", "--qual", "9"), field="unknown option --qual;")
    assert line.endswith("did you mean --quality?")


def test_flag_without_its_value(refused: Check, style_file: Path, library: Path, tmp_path: Path):
    line = refused(*stylize(style_file, library, tmp_path / "out", "--quality"), field="argument --quality")
    assert line == "stylemill: argument --quality: expected one argument; see stylemill stylize --help"


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("quality", "high"),
        ("quality", "0"),
        ("strength", "2"),
        ("strength", "nan"),
        ("strength", "-0.5"),
        ("format", "gif"),
        ("max-memory", "lots"),
        ("max-memory", "1MB"),
        ("max-size-px", "0"),
        ("run-id", "../up"),
        ("run-id", "a\nb"),
        ("num-actors", "-1"),
        ("max-failed-fraction", "5"),
        ("preserve-color", "perhaps"),
        ("precision", "float16"),
    ],
)
def test_bad_values(refused: Check, style_file: Path, library: Path, tmp_path: Path, flag: str, value: str):
    line = refused(*stylize(style_file, library, tmp_path / "out", f"--{flag}", value), field=flag.replace("-", "_"))
    assert value.lstrip("-").splitlines()[0] in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("missing", ["model", "input", "out"])
def test_required_fields(refused: Check, style_file: Path, library: Path, tmp_path: Path, missing: str):
    given = {"model": style_file, "input": library, "out": tmp_path / "out"}
    arguments = [word for name, value in given.items() if name != missing for word in (f"--{name}", value)]
    line = refused("stylize", *arguments, field=f"--{missing} is required")
    cures = {"model": "give it, or --style with one that comes with stylemill: night-fields,"}
    cure = cures.get(missing, "give it on the command line or in the --config file")
    assert line.startswith(f"stylemill: --{missing} is required; {cure}")
    refused("stylize", *arguments, f"--{missing}", "", field=missing)


def test_model_that_is_missing(refused: Check, library: Path, tmp_path: Path):
    style = tmp_path / "no.safetensors"
    assert str(style) in refused(*stylize(style, library, tmp_path / "out"), field="model")


@pytest.mark.parametrize("content", [b"", b"not a model", b"\xff" * 4000, b"\x10\0\0\0\0\0\0\0{}", b"\xff" * 8])
def test_model_that_is_not_a_model(refused: Check, library: Path, tmp_path: Path, content: bytes):
    style = tmp_path / "style.safetensors"
    style.write_bytes(content)
    assert str(style) in refused(*stylize(style, library, tmp_path / "out"), field="model")
    assert not (tmp_path / "out").exists()


def test_model_that_is_damaged(refused: Check, style_file: Path, library: Path, tmp_path: Path):
    style = tmp_path / "style.safetensors"
    style.write_bytes(style_file.read_bytes()[:-100])
    assert str(style) in refused(*stylize(style, library, tmp_path / "out"), field="model")


def test_model_that_is_a_folder_or_carries_a_secret(refused: Check, library: Path, tmp_path: Path):
    refused(*stylize(tmp_path, library, tmp_path / "out"), field="model")
    assert "hunter2" not in refused(*stylize("s3://me:hunter2@b/x", library, tmp_path / "out"), field="model")


def test_two_styles_of_one_name(refused: Check, style_file: Path, library: Path, tmp_path: Path):
    refused(*stylize(style_file, library, tmp_path / "out", "--model", style_file), field="model")


def test_input_that_is_empty_or_missing(refused: Check, style_file: Path, tmp_path: Path):
    (tmp_path / "empty" / "folder").mkdir(parents=True)
    for source in (tmp_path / "empty", tmp_path / "missing", tmp_path / "empty" / "*.jpg", tmp_path / ("n" * 300)):
        assert str(source) in refused(*stylize(style_file, source, tmp_path / "out"), field="input")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "columns", [{"key": ["a"]}, {"uri": ["/a", None]}, {"uri": [1, 2]}, {"uri": ["/a"], "key": [1]}]
)
def test_parquet_without_usable_uris(refused: Check, style_file: Path, tmp_path: Path, columns: dict):
    path = tmp_path / "sources.parquet"
    pq.write_table(pa.table(columns), path)
    refused(*stylize(style_file, path, tmp_path / "out"), field="input")


def test_parquet_that_is_not_parquet(refused: Check, style_file: Path, tmp_path: Path):
    path, sink = tmp_path / "sources.parquet", io.BytesIO()
    pq.write_table(pa.table({"uri": ["/a"] * 1000}), sink)
    whole = bytearray(sink.getvalue())
    for content in (b"", b"PAR1", b"words" * 9, bytes(whole[:-20]), bytes(whole[:4] + b"\xff" * 60 + whole[64:])):
        path.write_bytes(content)
        refused(*stylize(style_file, path, tmp_path / "out"), field="input")


def test_output_inside_the_input_and_the_other_way_round(
    refused: Check, style_file: Path, library: Path, tmp_path: Path
):
    (tmp_path / "alias").symlink_to(library)
    for out in (library, library / "out", f"{library}/x/../out", tmp_path / "alias" / "out"):
        refused(*stylize(style_file, library, out), field="out")
    refused(*stylize(style_file, tmp_path / "alias", library / "out"), field="out")
    inside = tmp_path / "out" / "images" / "waves" / "deep"
    inside.mkdir(parents=True)
    (inside / "a.jpg").write_bytes(image_bytes(20, 20))
    refused(*stylize(style_file, inside, tmp_path / "out"), field="input")


def test_output_that_holds_something_else(refused: Check, style_file: Path, library: Path, tmp_path: Path):
    for name in ("a-first", "kitten.jpg", "manifests-not", "zebra/deep/file"):
        out = tmp_path / name[0]
        (out / name).parent.mkdir(parents=True)
        (out / name).write_bytes(b"")
        assert repr(name) in refused(*stylize(style_file, library, out), field="out")


def test_output_that_is_a_file(refused: Check, style_file: Path, library: Path, tmp_path: Path):
    (tmp_path / "out").write_bytes(b"mine")
    for out in (tmp_path / "out", tmp_path / "out" / "deeper"):
        refused(*stylize(style_file, library, out), field="out")
    assert (tmp_path / "out").read_bytes() == b"mine"


def test_output_that_may_not_be_written(stylemill: Callable, style_file: Path, library: Path, tmp_path: Path):
    (tmp_path / "shut").mkdir(mode=0o555)
    answer = stylemill(*stylize(style_file, library, tmp_path / "shut" / "deeper"), bound_by_permissions=True)
    assert (answer.returncode, answer.stdout) == (WRONG_USE, "")
    assert answer.stderr.startswith("stylemill: out=") and answer.stderr.count("\n") == 1


def test_input_that_may_not_be_read(stylemill: Callable, style_file: Path, library: Path, tmp_path: Path):
    library.chmod(0)
    answer = stylemill(*stylize(style_file, library, tmp_path / "out"), bound_by_permissions=True)
    library.chmod(0o755)
    assert answer.returncode == WRONG_USE
    assert answer.stderr.startswith("stylemill: input=") and answer.stderr.count("\n") == 1


def test_location_that_is_not_utf8(stylemill: Callable, style_file: Path, library: Path, tmp_path: Path):
    for arguments in (
        stylize(style_file, os.fsdecode(b"/x\xff"), tmp_path / "out"),
        stylize(style_file, library, "/o\udcff"),
    ):
        answer = stylemill(*arguments)
        assert (answer.returncode, answer.stderr.count("\n")) == (WRONG_USE, 1), answer.stderr


def test_unknown_scheme(refused: Check, style_file: Path, library: Path):
    refused(*stylize(style_file, "nosuch://bucket/x", "/out"), field="input")
    refused(*stylize(style_file, library, "nosuch://bucket/x"), field="out")
    refused(*stylize("nosuch://bucket/x", library, "/out"), field="model")


def test_run_begun_with_other_settings(refused: Check, style_file: Path, library: Path, tmp_path: Path):
    from stylemill.stylizing.config import StylizeConfig
    from stylemill.stylizing.preflight import prepare

    same = {"model": (str(style_file),), "input": str(library), "out": str(tmp_path / "out"), "run_id": "mine"}
    prepare(StylizeConfig(**same))
    line = refused(
        *stylize(style_file, library, tmp_path / "out", "--run-id=mine", "--quality=7"), field="run_id='mine'"
    )
    assert "quality 90 -> 7" in line
    (tmp_path / "out" / "runs" / "mine" / "run.json").write_text("{]")
    refused(*stylize(style_file, library, tmp_path / "out", "--run-id=mine"), field="run_id='mine'")


@pytest.mark.parametrize(
    ("content", "field"),
    [
        (b"a: [", "config"),
        (b"- a\n- b\n", "config"),
        (b"quality: \xff\n", "config"),
        (b"qualty: 5\n", "qualty"),
        (b"quality: five\n", "quality"),
        (b"storage: {endpoint: x}\n", "storage.endpoint"),
        (b"storage: {endpoint_url: 'http://k:hunter2@h'}\n", "storage.endpoint_url"),
        (b"model: {a: b}\n", "model"),
    ],
)
def test_config_files(refused: Check, style_file: Path, library: Path, tmp_path: Path, content: bytes, field: str):
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    line = refused(*stylize(style_file, library, tmp_path / "out", "--config", path), field=field)
    assert "hunter2" not in line
    if field == "qualty":
        assert "quality" in line


def test_config_file_that_cannot_be_read(refused: Check, style_file: Path, library: Path, tmp_path: Path):
    for path in (tmp_path / "missing.yaml", tmp_path):
        assert str(path) in refused(*stylize(style_file, library, tmp_path / "out", "--config", path), field="config")


def test_print_config_reads_no_files(capsys: pytest.CaptureFixture[str]):
    assert (
        main(["stylize", "--model", "m", "--input", "i", "--out", "o", "--storage.region", "x", "--print-config"])
        == DONE
    )
    printed = capsys.readouterr().out
    assert "quality: 90\n" in printed and "region: x\n" in printed and "max_memory: 2GiB\n" in printed


def test_an_output_that_cannot_be_written_is_refused_before_the_work(refused: Check, style_file: Path, tmp_path: Path):
    out, picture = tmp_path / "taken", tmp_path / "a.jpg"
    out.write_bytes(b"mine")
    picture.write_bytes(image_bytes(96, 96))
    judged = ("--content", picture, "--style-image", picture, "--style-size-px", "64", "--size-px", "64")
    refused("evaluate", "--model", style_file, *judged, "--out", out, field="out")
    refused("optimize", *judged, "--out", out, "--iterations", "100000", field="out")
    refused("optimize", *judged[2:], "--out", out, "--content", tmp_path, field="content")
    refused("compare", "--evaluation", tmp_path, "--out", out, field="out")
    refused("compare", "--evaluation", out, field="evaluation")
    refused("compare", "--live", tmp_path, field="live")
    refused("demo-retrain", "--out", out, field="out")
    assert out.read_bytes() == b"mine"


@pytest.mark.parametrize("verb", ["verify", "gc"])
def test_a_wrong_location_does_not_wait_for_ray(verb: str, tmp_path: Path):
    code = (
        f"import sys; from stylemill.cli.main import main; code = main(['manifest', '{verb}', sys.argv[1]]);"
        "sys.exit(99 if 'ray' in sys.modules else code)"
    )
    answer = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert answer.returncode == WRONG_USE


def test_manifest_verbs(refused: Check, tmp_path: Path):
    line = refused("manifest", field="manifest")
    assert line == "stylemill: manifest needs a subcommand: verify, summary, repair, gc"
    line = refused("manifest", "verfy", field="unknown command")
    assert line == "stylemill: unknown command 'manifest verfy'; did you mean 'verify'?"
    line = refused("manifest", "--verify", field="unknown option --verify;")
    assert line.endswith("see stylemill manifest --help")
    for name in ("verify", "summary"):
        refused("manifest", name, field="URI is missing")
        refused("manifest", name, tmp_path / "nothing", field="uri")
        refused("manifest", name, tmp_path / "manifests" / "x", field="uri")


def test_damaged_success_is_a_failure_of_one_line(refused: Check, tmp_path: Path):
    folder = tmp_path / "manifests" / "x"
    folder.mkdir(parents=True)
    for content in (b"", b"{}", b"[]", b"\xff", b'{"schema_version": 99}', b'{"schema_version": "one"}'):
        (folder / "_SUCCESS").write_bytes(content)
        for name in ("verify", "summary"):
            refused("manifest", name, tmp_path, field=str(folder), exit_code=FAILED)


@pytest.mark.parametrize("arguments", [["--help"], *([verb, "--help"] for verb in VERBS)])
def test_help_is_light(arguments: list[str]):
    code = (
        "import sys; from stylemill.cli.main import main; code = main(sys.argv[1:]);"
        "heavy = {'torch', 'ray', 'torchvision', 'pyarrow', 'PIL', 'numpy'} & set(sys.modules);"
        "print('heavy:', sorted(heavy)); sys.exit(code)"
    )
    answer = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert answer.returncode == DONE, answer.stderr
    assert "usage: " in answer.stdout and answer.stdout.endswith("heavy: []\n") and not answer.stderr


def test_a_dashboard_url_is_not_a_cluster_address(monkeypatch: pytest.MonkeyPatch):
    from stylemill.cli.session import ray_session

    monkeypatch.setenv("RAY_ADDRESS", "http://head:8265")
    with pytest.raises(ConfigError, match="put `submit` before the command"), ray_session():
        pass


@pytest.mark.parametrize("arguments", [["--help"], ["help"], ["stylize", "--help"], ["manifest", "--help"]])
def test_a_closed_pipe_is_silent(arguments: list[str]):
    command = [sys.executable, "-m", "stylemill", *arguments]
    reader, writer = os.pipe()
    os.close(reader)
    answer = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert answer.returncode in (DONE, FAILED) and answer.stderr == ""  # argparse ignores a closed pipe
    for consumer in ("true", "head -1"):
        line = f"{shlex.join(command)} | {consumer}"
        answer = subprocess.run(line, shell=True, capture_output=True, text=True, check=False)
        assert (answer.returncode, answer.stderr) == (0, "")


def test_help_is_a_command_too(capsys: pytest.CaptureFixture[str]):
    for words in ([], ["train"], ["manifest"], ["manifest", "verify"], ["submit", "train"]):
        assert main(["help", *words]) == DONE
        printed = capsys.readouterr().out
        assert main([*words, "--help"]) == DONE
        assert capsys.readouterr().out == printed and printed.startswith("usage: stylemill")


def test_an_unknown_log_level_is_wrong_use(refused: Check, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("STYLEMILL_LOG", "chatty")
    assert "chatty" in refused("manifest", "verify", "/x", field="STYLEMILL_LOG")


def test_names_that_stdout_cannot_encode_are_escaped(tmp_path: Path):
    from stylemill.storage import Storage
    from tests.committed import commit_run

    commit_run(Storage(), str(tmp_path), styles=("wellen-ü😀",))
    answer = subprocess.run(
        [sys.executable, "-m", "stylemill", "manifest", "summary", str(tmp_path)],
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (answer.returncode, answer.stderr) == (DONE, "")
    assert "style wellen-\\xfc\\U0001f600 version" in answer.stdout


def test_a_run_without_one_image_is_a_failure_for_people_and_not_for_schedulers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    from stylemill.cli import stylize
    from stylemill.errors import StylemillError

    def run(verb: str, arguments: list[str]) -> int:
        identity = SimpleNamespace(follow_up=False, input="texts")
        success = SimpleNamespace(counts={"skipped": 2}, parts=[SimpleNamespace(errors={"Text": 2})])
        stylize._check_that_images_were_found(identity, success)
        return 0

    monkeypatch.setattr("stylemill.cli.main._run_verb", run)
    with pytest.raises(StylemillError, match="nothing was painted"):
        run("stylize", [])
    assert main(["stylize"]) == FAILED
    assert "ALERT" not in capsys.readouterr().err
    assert main_for_scheduler(["stylize"]) == DONE
    told, alert = capsys.readouterr().err.splitlines()
    assert "nothing was painted" in told and alert.startswith("ALERT stylemill stylize: done, but ")


@pytest.mark.parametrize(("code", "reported"), [(0, 0), (1, 1), (2, 2), (3, 0), (130, 130)])
def test_three_alone_becomes_success(
    code: int, reported: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    # The codes of the verbs are tested elsewhere.
    monkeypatch.setattr("stylemill.cli.main._run_verb", lambda verb, arguments: code)
    assert main_for_scheduler(["stylize", "--out", "s3://bucket/secret-place"]) == reported
    alert = capsys.readouterr().err
    assert alert.startswith("ALERT stylemill stylize: done, but ") == (code == 3)
    assert alert.count("\n") == (code == 3) and "secret-place" not in alert
