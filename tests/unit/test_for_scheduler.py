"""Exit codes as a scheduler of jobs sees them."""

from __future__ import annotations

import pytest

from stylemill.cli.main import main_for_scheduler


@pytest.mark.parametrize(("code", "seen"), [(0, 0), (1, 1), (2, 2), (3, 0), (130, 130)])
def test_three_alone_becomes_success(
    code: int, seen: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    # The verbs' own codes have tests of their own; here only what is made of them.
    monkeypatch.setattr("stylemill.cli.main._run", lambda verb, arguments: code)
    assert main_for_scheduler(["stylize", "--out", "s3://bucket/secret-place"]) == seen
    told = capsys.readouterr().err
    assert told.startswith("ALERT stylemill stylize: done, but ") == (code == 3)
    assert told.count("\n") == (code == 3) and "secret-place" not in told
