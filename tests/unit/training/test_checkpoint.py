from __future__ import annotations

import copy

import pytest
import torch

from stylemill.errors import RunConflict, StorageError
from stylemill.nn.transformer_net import Architecture, TransformerNet
from stylemill.storage import Storage
from stylemill.storage.local import TEMPORARY_PREFIX
from stylemill.training.checkpoint import COMPLETE, STATE, Checkpoints, CheckpointWriter, Superseded, TrainState

NUMBERS = {"rate_scale": 1.0}


def rows(step):
    common = {"learning_rate": 0.1, "skipped": False}
    return [{"step": number, "loss": 1 / number} | common for number in range(1, step + 1)]


def write(checkpoints, start, step):
    checkpoints.write(start, step, {"w": torch.full((3,), float(step))}, NUMBERS, rows(step))


@pytest.fixture
def checkpoints(tmp_path):
    return Checkpoints(Storage(), str(tmp_path / "checkpoints"))


def folder(tmp_path, step, start=1):
    return tmp_path / "checkpoints" / f"step-{step:08d}.start-{start:06d}"


def start_number(checkpoints):
    return checkpoints.register_start()[0]


def two_starts(checkpoints, before, after):
    """Let a start write checkpoints, and a second one, which resumes at the last, one more; return their numbers."""
    first = start_number(checkpoints)
    for step in before:
        write(checkpoints, first, step)
    second = start_number(checkpoints)
    write(checkpoints, second, after)
    return first, second


def newest_step(checkpoints):
    newest = checkpoints.newest()
    return newest.step if newest else None


def test_a_checkpoint_reads_back_as_written(checkpoints):
    write(checkpoints, start_number(checkpoints), 5)
    newest = checkpoints.newest()
    assert (newest.step, newest.numbers) == (5, NUMBERS)
    assert newest.tensors["w"].equal(torch.full((3,), 5.0))
    assert [row["step"] for row in newest.metrics] == [1, 2, 3, 4, 5]
    assert newest.metrics[2]["loss"] == 1 / 3


def test_a_new_run_has_no_checkpoint(checkpoints):
    assert checkpoints.newest() is None
    assert checkpoints.register_start() == (1, [])
    assert checkpoints.register_start() == (2, [])


@pytest.mark.parametrize(
    ("file", "content"),
    [
        (COMPLETE, None),
        (COMPLETE, b"{"),
        (COMPLETE, b"[]"),
        (COMPLETE, b'{"step": 10, "numbers": {}, "sha256": {}}'),
        (STATE, None),
        (STATE, b""),
        ("metrics.parquet", b"x"),
    ],
)
def test_incomplete_or_damaged_checkpoints_are_ignored_with_a_reason(checkpoints, tmp_path, file, content):
    start = start_number(checkpoints)
    write(checkpoints, start, 5)
    write(checkpoints, start, 10)
    damaged_file = folder(tmp_path, 10) / file
    damaged_file.unlink() if content is None else damaged_file.write_bytes(content)
    assert newest_step(checkpoints) == 5
    second, damaged = checkpoints.register_start()
    assert second == 2
    assert len(damaged) == 1 and damaged[0].startswith("checkpoint step-00000010.start-000001 is ignored:")


@pytest.mark.parametrize("position", [0, 40, -1])
def test_a_single_flipped_bit_is_noticed(checkpoints, tmp_path, position):
    write(checkpoints, start_number(checkpoints), 5)
    path = folder(tmp_path, 5) / STATE
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)
    assert newest_step(checkpoints) is None


def test_late_uploads_of_an_earlier_start_are_ignored(checkpoints):
    first = start_number(checkpoints)
    write(checkpoints, first, 5)
    second = start_number(checkpoints)  # resumes at 5
    write(checkpoints, first, 10)  # still under way when its worker was killed
    assert newest_step(checkpoints) == 5
    write(checkpoints, second, 8)
    assert newest_step(checkpoints) == 8
    third = start_number(checkpoints)  # resumes at 8
    write(checkpoints, second, 20)
    assert newest_step(checkpoints) == 8
    write(checkpoints, third, 9)
    assert newest_step(checkpoints) == 9


def test_a_roll_back_finds_the_newest_one_before_a_step(checkpoints):
    two_starts(checkpoints, before=(5, 10), after=15)
    found = [checkpoints.newest(before=step) for step in (16, 15, 10, 5)]
    assert [checkpoint.step if checkpoint else None for checkpoint in found] == [15, 10, 5, None]


def test_nothing_is_left_of_a_removed_checkpoint(checkpoints, tmp_path):
    first = start_number(checkpoints)
    write(checkpoints, first, 5)
    (folder(tmp_path, 5) / f"{TEMPORARY_PREFIX}12").write_bytes(b"half")
    write(checkpoints, first, 10)
    checkpoints.keep_newest(1, first)
    assert [path.name for path in (tmp_path / "checkpoints").glob("step-*")] == [folder(tmp_path, 10).name]


def test_an_earlier_start_raises_once_a_newer_one_has_registered(checkpoints):
    first = start_number(checkpoints)
    checkpoints.check_is_newest(first)
    start_number(checkpoints)
    with pytest.raises(RunConflict, match="start 2"):
        checkpoints.check_is_newest(first)


def test_only_the_newest_complete_checkpoints_are_kept(checkpoints, tmp_path):
    first = start_number(checkpoints)
    for step in (5, 10, 15):
        write(checkpoints, first, step)
    second = start_number(checkpoints)
    write(checkpoints, first, 20)  # late
    (folder(tmp_path, 15) / COMPLETE).unlink()  # torn
    write(checkpoints, second, 25)
    checkpoints.keep_newest(2, second)
    left = sorted(path.parent.name for path in (tmp_path / "checkpoints").glob("step-*/*") if path.name == COMPLETE)
    assert left == ["step-00000010.start-000001", "step-00000025.start-000002"]
    assert not list(folder(tmp_path, 15).glob("*"))


def test_writer_uploads_in_order_and_keeps_the_given_number(checkpoints):
    writer = CheckpointWriter(checkpoints, start_number(checkpoints), keep=1)
    for step in (1, 2, 3):
        writer.submit(step, {"w": torch.ones(2)}, NUMBERS, rows(step))
    writer.wait()
    assert newest_step(checkpoints) == 3


def test_writer_raises_an_upload_s_error_and_the_old_checkpoint_stays_valid(checkpoints, tmp_path):
    start = start_number(checkpoints)
    write(checkpoints, start, 5)
    folder(tmp_path, 10).write_bytes(b"a file where the folder of the next checkpoint would be")
    writer = CheckpointWriter(checkpoints, start, keep=1)
    writer.submit(10, {"w": torch.ones(2)}, NUMBERS, rows(10))
    with pytest.raises(StorageError):
        writer.wait()
    folder(tmp_path, 10).unlink()
    assert newest_step(checkpoints) == 5


def test_a_roll_back_removes_later_checkpoints(checkpoints):
    """A killed run resumes where its last start was, not at the weights that had failed."""
    start = start_number(checkpoints)
    for step in (5, 10, 15):
        write(checkpoints, start, step)
    checkpoints.discard_after(5, start)
    assert newest_step(checkpoints) == 5
    write(checkpoints, start, 7)
    checkpoints.keep_newest(2, start)
    assert newest_step(checkpoints) == 7
    assert checkpoints.newest(before=7).step == 5


def test_an_earlier_start_removes_no_checkpoint_of_a_newer_one(checkpoints, tmp_path):
    first = start_number(checkpoints)
    for step in (5, 10):
        write(checkpoints, first, step)
    second = start_number(checkpoints)  # resumes at 10
    write(checkpoints, second, 12)
    (folder(tmp_path, 12, second) / COMPLETE).unlink()  # it is still under way
    checkpoints.keep_newest(1, first)
    assert (folder(tmp_path, 12, second) / STATE).exists()
    assert newest_step(checkpoints) == 10


def test_a_roll_back_of_a_superseded_start_leaves_its_successor_alone(checkpoints):
    first, second = two_starts(checkpoints, before=(10, 20), after=30)
    with pytest.raises(Superseded):
        checkpoints.discard_after(10, first)
    assert newest_step(checkpoints) == 30
    # For the first start the second one's checkpoint does not exist; for the second, everything before does.
    assert checkpoints.newest(until=first).step == 20
    assert checkpoints.newest(before=20, until=first).step == 10
    assert checkpoints.newest(before=30, until=second).step == 20


def test_a_roll_back_leaves_a_successor_that_registers_meanwhile_alone(checkpoints, monkeypatch):
    first, _ = two_starts(checkpoints, before=(10,), after=30)
    monkeypatch.setattr(checkpoints, "check_is_newest", lambda start: None)
    checkpoints.discard_after(5, first)
    assert newest_step(checkpoints) == 30


def test_a_superseded_start_writes_and_removes_nothing(checkpoints, tmp_path):
    first = start_number(checkpoints)
    write(checkpoints, first, 10)
    writer = CheckpointWriter(checkpoints, first, keep=1)
    writer.check()
    start_number(checkpoints)
    with pytest.raises(Superseded):
        writer.check()
    writer.submit(20, {"w": torch.ones(2)}, NUMBERS, rows(20))
    with pytest.raises(Superseded):
        writer.wait()
    assert [path.name for path in (tmp_path / "checkpoints").glob("step-*")] == [folder(tmp_path, 10).name]


def test_who_has_taken_over_is_told_by_the_driver_also_from_another_process(checkpoints):
    first, _ = checkpoints.register_start("a")
    checkpoints.register_start("a")
    checkpoints.register_start("b")
    with pytest.raises(Superseded, match="start 3 of this run has taken over from start 1") as caught:
        checkpoints.check_is_newest(first)
    again = copy.deepcopy(caught.value)  # as Ray sends it: by its arguments
    assert (again.driver, str(again)) == ("b", str(caught.value))


def state(seed):
    net = TransformerNet(Architecture(width=0.25))
    net.init_weights(seed)
    return TrainState.fresh(net)


def test_the_digest_of_a_state_covers_weights_average_and_counters():
    first, same, other, changed = state(0), state(0), state(1), state(0)
    assert first.digest() == same.digest() != other.digest()
    same.step = 1
    assert first.digest() != same.digest()
    next(iter(changed.average.values())).view(-1)[0] += 1e-3
    assert first.digest() != changed.digest()


def test_foreign_files_among_the_starts_are_ignored(checkpoints, tmp_path):
    start_number(checkpoints)
    (tmp_path / "checkpoints" / "starts" / ".DS_Store").write_bytes(b"Finder")
    assert start_number(checkpoints) == 2
