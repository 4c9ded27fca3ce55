from __future__ import annotations

from collections.abc import Iterator

import pytest

from stylemill.errors import ObjectNotFound, StorageError
from stylemill.storage import ObjectStat, Storage, StorageOptions, retry
from stylemill.storage.retry import TransientError, with_retries


class Flaky:
    """Fails so often, then answers."""

    def __init__(self, num_failures: int, error: type[Exception] = TransientError) -> None:
        self.calls, self._left, self._error = 0, num_failures, error

    def __call__(self) -> str:
        self.calls += 1
        if self._left:
            self._left -= 1
            raise self._error("not now")
        return "answer"


def test_a_fault_that_passes_is_got_over(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(retry, "FIRST_DELAY_S", 0.0005)
    operation = Flaky(8)
    assert with_retries(operation, what="reading x", deadline_s=60) == "answer"
    assert operation.calls == 9


def test_a_fault_that_stays_ends_at_the_deadline_and_says_what_to_do():
    operation = Flaky(10**9)
    with pytest.raises(StorageError, match=r"reading x failed \d+ times.*not now.*same command") as caught:
        with_retries(operation, what="reading x", deadline_s=0.5)
    assert operation.calls >= 2 and f"failed {operation.calls} times" in str(caught.value)
    assert isinstance(caught.value.__cause__, TransientError)


@pytest.mark.parametrize("error", [ObjectNotFound, StorageError, ValueError, KeyboardInterrupt])
def test_a_fault_that_cannot_pass_is_not_repeated(error: type[Exception]):
    operation = Flaky(1, error)
    with pytest.raises(error):
        with_retries(operation, what="x", deadline_s=60)
    assert operation.calls == 1


class LossyStore:
    """A store in memory whose answers get lost now and then; each operation really happens first."""

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

    def create(self, path: str, data: bytes) -> bool:
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


def test_a_create_after_someone_elses_is_not_ours(lossy: tuple[Storage, LossyStore]):
    storage, store = lossy
    store.objects["memory://x"] = b"theirs"
    store.lose = [True, False]
    assert storage.create_bytes("memory://x", b"mine") is False
    store.lose = []
    assert storage.create_bytes("memory://x", b"theirs") is False, "equal content of another's is no win without doubt"


def test_a_listing_that_breaks_goes_on_where_it_was(lossy: tuple[Storage, LossyStore]):
    storage, store = lossy
    store.objects = {f"k{number}": b"" for number in range(6)}
    store.lose = [False, False, True, False, True, True, False]
    assert [found.key for found in storage.list_objects("memory://")] == sorted(store.objects)
    assert store.num_listings == 4
