"""Retries with backoff, and the limit on requests in flight."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from stylemill.errors import ObjectNotFound, StorageError
from stylemill.storage import ObjectStat, Storage, StorageOptions, retry
from stylemill.storage.retry import Limiter, Throttled, TransientError, with_retries


class Flaky:
    """Fails this many times, then succeeds."""

    def __init__(self, num_failures: int, error: type[Exception] = TransientError) -> None:
        self.calls, self._left, self._error = 0, num_failures, error

    def __call__(self) -> str:
        self.calls += 1
        if self._left:
            self._left -= 1
            raise self._error("not now")
        return "answer"


def test_a_transient_fault_is_retried(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(retry, "FIRST_DELAY_S", 0.0005)
    operation = Flaky(8)
    assert with_retries(operation, what="reading x", deadline_s=60) == "answer"
    assert operation.calls == 9


def test_a_lasting_fault_ends_at_the_deadline_with_a_cure():
    operation = Flaky(10**9)
    with pytest.raises(StorageError, match=r"reading x failed \d+ times.*not now.*same command") as caught:
        with_retries(operation, what="reading x", deadline_s=0.5)
    assert operation.calls >= 2 and f"failed {operation.calls} times" in str(caught.value)
    assert isinstance(caught.value.__cause__, TransientError)


@pytest.mark.parametrize("error", [ObjectNotFound, StorageError, ValueError, KeyboardInterrupt])
def test_other_errors_are_not_retried(error: type[Exception]):
    operation = Flaky(1, error)
    with pytest.raises(error):
        with_retries(operation, what="x", deadline_s=60)
    assert operation.calls == 1


class LossyStore:
    """A store in memory that loses some answers after it has done the operation."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.lose: list[bool] = []
        self.num_listings = 0

    def _answer(self) -> None:
        if self.lose and self.lose.pop(0):
            raise TransientError("the answer was lost")

    def read(self, path: str) -> bytes:
        self._answer()
        return self.objects[path]

    def create(self, path: str, data: bytes, *, durable: bool = True) -> bool:
        created = path not in self.objects
        self.objects.setdefault(path, data)
        self._answer()
        return created

    def list_objects(self, root: str, after: str = "") -> Iterator[ObjectStat]:
        self.num_listings += 1
        for key in sorted(self.objects):
            if key > after:
                self._answer()
                yield ObjectStat(key, key, len(self.objects[key]), "")


@pytest.fixture
def lossy() -> tuple[Storage, LossyStore]:
    storage, store = Storage(StorageOptions(retry_deadline_s=5.0)), LossyStore()
    storage._stores["memory"] = store  # type: ignore[assignment]
    return storage, store


def test_a_create_whose_answer_was_lost_is_still_ours(lossy: tuple[Storage, LossyStore]):
    storage, store = lossy
    store.lose = [True, False]
    assert storage.create_bytes("memory://x", b"mine") is True


def test_a_create_after_another_process_is_not_ours(lossy: tuple[Storage, LossyStore]):
    storage, store = lossy
    store.objects["memory://x"] = b"theirs"
    store.lose = [True, False]
    assert storage.create_bytes("memory://x", b"mine") is False
    store.lose = []
    assert storage.create_bytes("memory://x", b"theirs") is False, "equal content of another's is no win without doubt"


def test_a_broken_listing_continues_after_the_last_key(lossy: tuple[Storage, LossyStore]):
    storage, store = lossy
    store.objects = {f"k{number}": b"" for number in range(6)}
    store.lose = [False, False, True, False, True, True, False]
    assert [found.key for found in storage.list_objects("memory://")] == sorted(store.objects)
    assert store.num_listings == 4


def fail(error: type[Exception]):
    def operation() -> None:
        raise error("no")

    return operation


def refuse(limiter: Limiter, error: type[Exception] = Throttled) -> None:
    with pytest.raises(error):
        limiter.run(fail(error))


class Busy:
    """Operations that stay in flight until they are released."""

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


def test_requests_in_flight_stay_within_the_limit():
    limiter = Limiter(3)
    busy = Busy(limiter, 5)
    busy.wait_until_started(3)
    assert not busy._started.acquire(timeout=0.2), "a fourth one was let in"
    busy.let_go()


def test_throttling_halves_the_limit_once_per_group_of_requests():
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
def test_other_faults_leave_the_limit_and_end_their_request(error: type[Exception]):
    limiter = Limiter(2)
    for _ in range(5):
        refuse(limiter, error)
    assert limiter.limit == 2


class NarrowStore:
    """A store that throttles requests while ``width`` others are in flight."""

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


def test_a_throttling_store_soon_gets_fewer_requests(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(retry, "FIRST_DELAY_S", 0.0)  # so that the limiter alone holds requests back
    monkeypatch.setattr(retry, "LONGEST_DELAY_S", 0.0)
    storage, store = Storage(StorageOptions(retry_deadline_s=60.0)), NarrowStore(3)
    storage._stores["memory"] = store  # type: ignore[assignment]
    with ThreadPoolExecutor(24) as pool:
        list(pool.map(lambda number: storage.write_bytes(f"memory://{number}", b""), range(600)))
    assert store.num_done == 600
    assert store.num_refused < 200, store.num_refused
