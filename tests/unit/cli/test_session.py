"""Starting Ray on this machine, without starting it."""

from __future__ import annotations

import pytest
import ray

from stylemill.cli import session
from stylemill.errors import ClusterError

TIMED_OUT = "The current node timed out during startup. This could happen because some of the raylet failed to startup"


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> list[Exception | None]:
    """Results of the next starts of Ray: an error, or None for success. Nothing is started."""
    outcomes: list[Exception | None] = []

    def init(**_: object) -> None:
        outcome = outcomes.pop(0)
        if outcome is not None:
            raise outcome

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    return outcomes


def test_a_cluster_that_starts_too_slowly_is_started_again(starts: list[Exception | None]):
    starts += [Exception(TIMED_OUT), Exception(TIMED_OUT), None]
    with session.ray_session():
        assert not starts


def test_a_machine_too_busy_for_ray_is_an_error_of_one_line(starts: list[Exception | None]):
    starts += [Exception(TIMED_OUT)] * session.MAX_STARTS
    with pytest.raises(ClusterError, match="less busy") as raised, session.ray_session():
        pass
    assert "\n" not in str(raised.value)


def test_other_errors_of_ray_are_not_retried(starts: list[Exception | None]):
    starts += [ValueError("num_cpus"), None]
    with pytest.raises(ValueError, match="num_cpus"), session.ray_session():
        pass
    assert starts == [None]
