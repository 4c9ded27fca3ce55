from __future__ import annotations

import pytest
import ray

from stylemill.cli import session
from stylemill.errors import ClusterError

IMPATIENT = "The current node timed out during startup. This could happen because some of the raylet failed to startup"


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> list[Exception | None]:
    """What Ray's next starts come to: an error, or None for a cluster. Nothing is started."""
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
    starts += [Exception(IMPATIENT), Exception(IMPATIENT), None]
    with session.ray_session():
        assert not starts


def test_a_machine_too_busy_for_ray_is_told_in_one_line(starts: list[Exception | None]):
    starts += [Exception(IMPATIENT)] * session.MAX_STARTS
    with pytest.raises(ClusterError, match="less busy") as raised, session.ray_session():
        pass
    assert "\n" not in str(raised.value)


def test_other_errors_of_ray_are_not_retried(starts: list[Exception | None]):
    starts += [ValueError("num_cpus"), None]
    with pytest.raises(ValueError, match="num_cpus"), session.ray_session():
        pass
    assert starts == [None]
