from __future__ import annotations

import threading

import pytest

from stylemill.process import periodically


def test_the_action_runs_beside_the_body_and_once_more_after_it():
    threads: list[int] = []
    twice = threading.Event()

    def act() -> None:
        threads.append(threading.get_ident())
        if len(threads) == 2:
            twice.set()

    with periodically(act, 0.001):
        assert twice.wait(10)
    assert threads[-1] == threading.get_ident()
    assert threading.get_ident() not in threads[:-1]


def test_an_error_of_the_body_ends_it_at_once():
    calls: list[int] = []
    with pytest.raises(KeyError), periodically(lambda: calls.append(1), 60):
        raise KeyError
    assert calls == []
