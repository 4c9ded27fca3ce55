"""The common flags: where text goes, the one JSON object, and events."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stylemill.cli.main import DONE, FAILED, INTERRUPTED, WRONG_USE, main
from stylemill.cli.output import OutputOptions, output_of, result, split_common_flags
from stylemill.cli.terminal import LiveLine, Steps
from stylemill.errors import ConfigError
from stylemill.storage import Storage
from tests.committed import commit_run


@pytest.fixture
def out(tmp_path: Path) -> Path:
    commit_run(Storage(), str(tmp_path / "out"))
    return tmp_path / "out"


def one_object(stdout: str) -> dict[str, Any]:
    assert stdout.count("\n") == 1 and stdout.endswith("\n")
    return json.loads(stdout)


def events(stdout: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stdout.splitlines()]


def test_the_flags_may_stand_anywhere_and_leave_the_rest_alone():
    options, rest = split_common_flags(["--json", "manifest", "-v", "verify", "--uri", "x", "--verbose"])
    assert options == OutputOptions(form="json", log_level="DEBUG") and rest == ["manifest", "verify", "--uri", "x"]
    assert split_common_flags(["train", "-vv"])[0].log_level == "DEBUG"
    assert split_common_flags(["train"]) == (OutputOptions(), ["train"])


@pytest.mark.parametrize("flags", [("--json", "--json-lines"), ("--quiet", "-v")])
def test_flags_that_exclude_each_other(flags: tuple[str, str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(ConfigError, match="exclude each other"):
        split_common_flags(flags)
    assert main(["train", *flags]) == WRONG_USE
    said = capsys.readouterr()
    assert said.err.count("\n") == 1 and said.out == ""


def test_json_is_one_object_on_stdout_and_the_text_goes_to_stderr(out: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["manifest", "summary", str(out)]) == DONE
    text = capsys.readouterr().out
    assert main(["manifest", "summary", str(out), "--json"]) == DONE
    said = capsys.readouterr()
    found = one_object(said.out)
    assert said.err == text
    assert (found["command"], found["exit_code"]) == ("manifest summary", 0) and found["seconds"] >= 0
    assert found["counts"]["ok"] == found["num_rows"] > 0 and found["paths"]["manifest"].startswith(str(out))


def test_json_of_verify_names_every_problem(out: Path, capsys: pytest.CaptureFixture[str]):
    image = next(path for path in (out / "images").rglob("*") if path.is_file())
    image.unlink()
    assert main(["manifest", "verify", str(out), "--json"]) == FAILED
    found = one_object(capsys.readouterr().out)
    assert (found["is_sound"], found["counts"]["problems"]) == (False, 1)
    assert found["problems"][0]["kind"] == "ObjectMissing" and found["problems"][0]["uri"] == str(image)
    assert main(["manifest", "gc", str(out), "--json"]) == DONE
    assert one_object(capsys.readouterr().out)["counts"] == {"objects": 0, "bytes": 0}


def test_a_mistake_is_an_error_object_and_one_line(capsys: pytest.CaptureFixture[str]):
    arguments = ["stylize", "--model", "m", "--input", "i", "--out", "o", "--quality", "high", "--json"]
    assert main(arguments) == WRONG_USE
    said = capsys.readouterr()
    found = one_object(said.out)
    assert (found["command"], found["exit_code"]) == ("stylize", WRONG_USE)
    assert found["error"] == {
        "type": "ConfigError",
        "message": "quality='high': is not a whole number; write a whole number",
        "field": "quality",
        "value": "high",
        "problem": "is not a whole number",
        "cure": "write a whole number",
    }
    assert said.err == f"stylemill: {found['error']['message']}\n"


def test_an_error_object_holds_no_credential(capsys: pytest.CaptureFixture[str]):
    main(["stylize", "--model", "s3://me:hunter2@bucket/x", "--input", "i", "--out", "o", "--json"])
    said = capsys.readouterr()
    assert one_object(said.out)["error"]["field"] == "model" and "hunter2" not in said.out + said.err


def test_an_interrupt_and_a_fault_of_our_own_end_with_an_object(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def run(verb: str, arguments: list[str]) -> int:
        raise KeyboardInterrupt if verb == "train" else ZeroDivisionError("by accident")

    monkeypatch.setattr("stylemill.cli.main._run_verb", run)
    assert main(["train", "--json"]) == INTERRUPTED
    found = one_object(capsys.readouterr().out)
    assert (found["exit_code"], found["error"]["type"]) == (INTERRUPTED, "KeyboardInterrupt")
    with pytest.raises(ZeroDivisionError):
        main(["stylize", "--json"])
    found = one_object(capsys.readouterr().out)
    assert (found["exit_code"], found["error"]["message"]) == (FAILED, "by accident")


def test_json_lines_are_events_with_the_result_last(capsys: pytest.CaptureFixture[str]):
    with output_of(OutputOptions(form="json-lines"), ["stylize", "--out", "x"]) as output:
        print("for people")
        line = LiveLine()
        for done in range(5):  # within a second: one event
            line.show(f"{done}/5", Steps(done=done, total=5, unit="images", failed=1))
        line.close()
        logging.getLogger("stylemill.test").warning("s3://me:hunter2@bucket is slow")
        result(paths={"a": Path("/a")}, loss=float("nan"))
        result(paths={"b": "/b"}, counts={"ok": 4})
        output.finish(3)
    said = capsys.readouterr()
    start, progress, warning, last = events(said.out)
    assert start == {"event": "start", "command": "stylize"}
    assert progress["event"] == "progress" and (progress["done"], progress["total"], progress["failed"]) == (0, 5, 1)
    assert warning == {"event": "warning", "level": "WARNING", "text": "s3://***@bucket is slow"}
    assert (last["event"], last["exit_code"], last["loss"]) == ("result", 3, None)
    assert last["paths"] == {"a": "/a", "b": "/b"} and last["counts"] == {"ok": 4}
    assert said.err.startswith("for people\n") and "progress:" not in said.err


def test_quiet_leaves_answers_problems_and_the_bytes_of_an_image(out: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["manifest", "verify", str(out), "--quiet"]) == DONE
    assert capsys.readouterr() == ("", "")
    next(path for path in (out / "images").rglob("*") if path.is_file()).unlink()
    assert main(["manifest", "verify", str(out), "--quiet"]) == FAILED
    said = capsys.readouterr()
    assert said.out == "" and "ObjectMissing" in said.err
    for answer in (["manifest", "summary", str(out)], ["train", "--help"]):
        assert main([*answer, "--quiet"]) == DONE
        assert capsys.readouterr().out
    code = (
        "import sys; from stylemill.cli.output import OutputOptions, output_of\n"
        "with output_of(OutputOptions(is_quiet=True), ['paint']):\n"
        "    print('text'); sys.stdout.buffer.write(b'image')"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"image"


def test_verbose_logs_what_stylemill_does_on_stderr(out: Path):
    def err(*flags: str) -> str:
        code = (
            "import logging, sys; from stylemill.cli import main\n"
            "main._run_verb = lambda verb, arguments: [\n"
            "    logging.getLogger('stylemill.x').info('heard'), logging.getLogger('other').info('hidden'), 0][2]\n"
            "sys.exit(main.main(sys.argv[1:]))"
        )
        command = [sys.executable, "-c", code, "train", *flags]
        return subprocess.run(command, capture_output=True, text=True, check=True).stderr

    assert err() == "" and err("-v") == err("-v", "--json-lines") == "INFO stylemill.x: heard\n"
