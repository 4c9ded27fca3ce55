from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from stylemill.errors import ObjectNotFound
from stylemill.storage import Storage, StorageOptions, retry
from stylemill.storage.retry import Limiter, Throttled, TransientError


def fail(error: type[Exception]):
    def operation() -> None:
        raise error("no")

    return operation


def refuse(limiter: Limiter, error: type[Exception] = Throttled) -> None:
    with pytest.raises(error):
        limiter.run(fail(error))


class Busy:
    """Operations that stay under way until they are let go."""

    def __init__(self, limiter: Limiter, count: int, error: type[Exception] | None = None) -> None:
        self._go, self._started = threading.Event(), threading.Semaphore(0)
        self._pool = ThreadPoolExecutor(count)
        self._error = error
        self._futures = [self._pool.submit(limiter.run, self._operation) for _ in range(count)]

    def _operation(self) -> None:
        self._started.release()
        self._go.wait()
        if self._error:
            raise self._error("no")

    def wait_until_started(self, count: int) -> None:
        for _ in range(count):
            assert self._started.acquire(timeout=30)

    def let_go(self) -> None:
        self._go.set()
        self._pool.shutdown()


def test_no_more_than_the_limit_are_under_way():
    limiter = Limiter(3)
    busy = Busy(limiter, 5)
    busy.wait_until_started(3)
    assert not busy._started.acquire(timeout=0.2), "a fourth one was let in"
    busy.let_go()


def test_a_refusal_halves_what_was_under_way_once():
    limiter = Limiter(32)
    busy = Busy(limiter, 8, Throttled)
    busy.wait_until_started(8)
    assert limiter.limit == 32
    busy.let_go()
    assert limiter.limit == 4, "eight refusals of requests that were under way together count as one"
    refuse(limiter)
    assert limiter.limit == 1
    refuse(limiter)
    assert limiter.limit == 1


def test_answers_raise_the_limit_slowly_and_not_beyond_the_first():
    limiter = Limiter(4)
    refuse(limiter)
    seen = []
    for _ in range(200):
        limiter.run(lambda: None)
        seen.append(limiter.limit)
    assert seen == sorted(seen) and seen[0] <= 2 and seen[-1] == 4
    assert seen.count(3) > 1, "it jumps"


@pytest.mark.parametrize("error", [TransientError, ObjectNotFound, KeyboardInterrupt])
def test_other_faults_change_nothing_and_give_their_place_back(error: type[Exception]):
    limiter = Limiter(2)
    for _ in range(5):
        refuse(limiter, error)
    assert limiter.limit == 2


class NarrowStore:
    """A store that refuses what comes while ``width`` requests are under way."""

    def __init__(self, width: int) -> None:
        self.num_done = self.num_refused = 0
        self._places = threading.Semaphore(width)

    def write(self, path: str, data: bytes, *, durable: bool = False) -> None:
        if not self._places.acquire(blocking=False):
            self.num_refused += 1
            raise Throttled("SlowDown")
        time.sleep(0.002)
        self.num_done += 1
        self._places.release()


def test_a_store_that_is_asked_for_too_much_is_soon_asked_for_less(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(retry, "FIRST_DELAY_S", 0.0)  # so that the limiter alone holds requests back
    monkeypatch.setattr(retry, "LONGEST_DELAY_S", 0.0)
    storage, store = Storage(StorageOptions(retry_deadline_s=60.0)), NarrowStore(3)
    storage._stores["memory"] = store  # type: ignore[assignment]
    with ThreadPoolExecutor(24) as pool:
        list(pool.map(lambda number: storage.write_bytes(f"memory://{number}", b""), range(600)))
    assert store.num_done == 600
    assert store.num_refused < 200, store.num_refused
