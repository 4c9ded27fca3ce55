from __future__ import annotations

import fcntl
import io
import os
import signal
import subprocess
import sys
import termios
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import stylemill
from stylemill.errors import ImageError, NotAnImage
from stylemill.images.decode import decode
from stylemill.images.isolation.client import ClusterError, IsolatedDecoder
from stylemill.images.options import DecodeOptions
from stylemill.images.source_image import SourceImage


def jpeg(width: int = 31, height: int = 17, seed: int = 0) -> bytes:
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture
def decoder() -> Iterator[IsolatedDecoder]:
    with IsolatedDecoder(DecodeOptions(decode_timeout_s=30)) as isolated:
        yield isolated


def child_pid(decoder: IsolatedDecoder) -> int:
    return decoder._thread.submit(decoder._living_child).result()._process.pid


def wait_for_sleep(pid: int) -> None:
    """Wait until a process has stopped after SIGSTOP."""
    while Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "T":
        time.sleep(0.005)


def kill_inside_a_request(decoder: IsolatedDecoder, data: bytes, number: int) -> Future[SourceImage]:
    """Kill the child by a signal after it has received an image and before it has responded."""
    pid = child_pid(decoder)
    os.kill(pid, signal.SIGSTOP)
    wait_for_sleep(pid)
    assert decoder._child is not None
    connection = decoder._child._connection
    future = decoder.submit(data)
    while not int.from_bytes(fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4)), sys.byteorder):
        time.sleep(0.005)  # until the request has reached the stopped child
    os.kill(pid, number)
    os.kill(pid, signal.SIGCONT)
    return future


def test_an_error_in_the_block_ends_a_decode_that_runs_and_those_that_wait() -> None:
    with pytest.raises(KeyboardInterrupt), IsolatedDecoder(DecodeOptions(decode_timeout_s=30)) as decoder:
        pid = child_pid(decoder)
        os.kill(pid, signal.SIGSTOP)
        wait_for_sleep(pid)
        futures = [decoder.submit(jpeg(seed=seed)) for seed in range(3)]
        raise KeyboardInterrupt
    for future in futures:
        with pytest.raises(ImageError) as failure:
            future.result()
        assert failure.value.error_type == "DecoderCrash", "not DecodeTimeout: nothing has waited for that"
    assert not Path(f"/proc/{pid}").exists(), "and no other child was started for them"
    assert decoder._child is None


def test_an_error_in_the_block_ends_a_child_that_has_just_been_started() -> None:
    with pytest.raises(KeyboardInterrupt), IsolatedDecoder(DecodeOptions()) as decoder:
        future = decoder.submit(jpeg())
        raise KeyboardInterrupt
    with pytest.raises(ImageError):
        future.result()
    assert decoder._child is None


def test_the_result_equals_that_of_the_decoder_in_this_process(decoder: IsolatedDecoder) -> None:
    for size in ((1, 1), (31, 17), (640, 480), (1500, 1100), (3, 4)):
        data = jpeg(*size)
        there, here = decoder.decode(data), decode(data, DecodeOptions())
        np.testing.assert_array_equal(there.image_HWC, here.image_HWC)
        assert (there.source_format, there.metadata, there.notes) == (
            here.source_format,
            here.metadata,
            here.notes,
        )


def test_pixels_stay_when_the_next_image_is_decoded(decoder: IsolatedDecoder) -> None:
    first = decoder.decode(jpeg(seed=1))
    before = first.image_HWC.copy()
    decoder.decode(jpeg(seed=2))
    np.testing.assert_array_equal(first.image_HWC, before)


def test_errors_are_transferred_with_type_and_message(decoder: IsolatedDecoder) -> None:
    with pytest.raises(ImageError) as truncated:
        decoder.decode(jpeg(200, 200)[:2000])
    assert truncated.value.error_type == "Truncated"
    with pytest.raises(NotAnImage, match="HTML"):
        decoder.decode(b"<!DOCTYPE html><html><body>404</body></html>")
    with pytest.raises(ImageError, match="0 bytes"):
        decoder.decode(b"")


def test_many_threads_share_one_decoder(decoder: IsolatedDecoder) -> None:
    data = [jpeg(20 + n, 30, seed=n) for n in range(12)]
    results: dict[int, SourceImage] = {}

    def work(n: int) -> None:
        results[n] = decoder.decode(data[n])

    threads = [threading.Thread(target=work, args=(n,)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for n in range(12):
        np.testing.assert_array_equal(results[n].image_HWC, decode(data[n], DecodeOptions()).image_HWC)


def test_a_crash_fails_one_image_only(decoder: IsolatedDecoder) -> None:
    future = kill_inside_a_request(decoder, jpeg(), signal.SIGSEGV)
    with pytest.raises(ImageError) as crash:
        future.result()
    assert crash.value.error_type == "DecoderCrash"
    assert "SIGSEGV" in crash.value.message
    assert decoder.decode(jpeg()).width_px == 31


def test_an_image_is_tried_again_after_a_crash_of_a_used_child(decoder: IsolatedDecoder) -> None:
    decoder.decode(jpeg(seed=5))
    assert kill_inside_a_request(decoder, jpeg(), signal.SIGSEGV).result().width_px == 31


def test_a_child_killed_between_images_is_replaced(decoder: IsolatedDecoder) -> None:
    pid = child_pid(decoder)
    os.kill(pid, signal.SIGKILL)
    assert decoder.decode(jpeg()).width_px == 31
    assert child_pid(decoder) != pid


def test_a_decoder_that_hangs_is_stopped() -> None:
    with IsolatedDecoder(DecodeOptions(decode_timeout_s=2)) as decoder:
        pid = child_pid(decoder)
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(ImageError) as hang:
            decoder.decode(jpeg())
        assert hang.value.error_type == "DecodeTimeout"
        assert "2 s" in hang.value.message
        assert not Path(f"/proc/{pid}").exists()
        assert decoder.decode(jpeg()).width_px == 31


def test_an_image_that_wants_too_much_memory_fails_alone() -> None:
    buffer = io.BytesIO()
    Image.new("L", (20_000, 9_000)).save(buffer, "PNG", compress_level=1)
    with IsolatedDecoder(DecodeOptions(decoder_memory_bytes=512 << 20)) as decoder:
        for _ in range(2):
            with pytest.raises(ImageError) as memory:
                decoder.decode(buffer.getvalue())
            assert memory.value.error_type == "DecoderMemory"
            assert decoder.decode(jpeg()).width_px == 31


def test_memory_of_large_images_is_released(decoder: IsolatedDecoder) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (6000, 5000), (1, 2, 3)).save(buffer, "PNG", compress_level=1)
    source = decoder.decode(buffer.getvalue())
    assert (source.image_HWC.reshape(-1, 3) == (1, 2, 3)).all()
    assert decoder._child is not None
    assert os.fstat(decoder._child._pixels_fd).st_blocks * 512 < 1 << 20
    assert decoder.decode(jpeg()).width_px == 31


def test_the_child_sees_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    with IsolatedDecoder(DecodeOptions()) as decoder:
        assert b"hidden" not in Path(f"/proc/{child_pid(decoder)}/environ").read_bytes()


def test_close_leaves_no_process_and_no_open_file() -> None:
    before = set(Path("/proc/self/fd").iterdir())
    decoder = IsolatedDecoder(DecodeOptions())
    decoder.decode(jpeg())
    pid = child_pid(decoder)
    decoder.close()
    assert not Path(f"/proc/{pid}").exists()
    assert set(Path("/proc/self/fd").iterdir()) <= before


def test_the_child_dies_with_a_parent_that_was_killed() -> None:
    script = """
        import sys, time
        from stylemill.images.isolation.client import ClusterError, IsolatedDecoder
        from stylemill.images.options import DecodeOptions
        decoder = IsolatedDecoder(DecodeOptions())
        print(decoder._thread.submit(decoder._living_child).result()._process.pid, flush=True)
        time.sleep(600)
    """
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    os.kill(pid, signal.SIGSTOP)  # like a busy decoder, it does not notice the closed socket
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 20
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not Path(f"/proc/{pid}").exists()


def test_without_isolation_there_is_no_child() -> None:
    with IsolatedDecoder(DecodeOptions(isolate_decoding=False)) as decoder:
        assert decoder.decode(jpeg()).width_px == 31
        assert decoder._child is None


def test_the_child_finds_the_package_without_the_parents_path(monkeypatch: pytest.MonkeyPatch):
    """As where an import hook, and not ``sys.path``, leads to the package."""
    package = Path(stylemill.__file__).parents[1]
    monkeypatch.setattr(sys, "path", [path for path in sys.path if Path(path).resolve() != package])
    with IsolatedDecoder(DecodeOptions()) as decoder:
        assert decoder.decode(jpeg()).width_px == 31


def with_short_writes(monkeypatch: pytest.MonkeyPatch, most: int, *, honest: bool) -> None:
    """Let a write into shared memory take at most some bytes, and claim it, or claim to have taken all."""
    pwrite = os.pwrite

    def short(fd: int, data: bytes | memoryview, offset: int) -> int:
        written = pwrite(fd, data[:most], offset)
        return written if honest else len(data)

    monkeypatch.setattr(os, "pwrite", short)


def test_a_short_write_is_continued(decoder: IsolatedDecoder, monkeypatch: pytest.MonkeyPatch) -> None:
    images = [jpeg(64, 48, seed=seed) for seed in range(3)]
    with_short_writes(monkeypatch, 1000, honest=True)
    for data in images:
        found = decoder.decode(data)
        np.testing.assert_array_equal(found.image_HWC, decode(data, DecodeOptions()).image_HWC)


@pytest.mark.parametrize("most", [1000, 0])
def test_an_image_never_gets_the_end_of_the_one_before(
    decoder: IsolatedDecoder, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """The bytes that are missing are those of another image of the same size, so that the head fits the tail."""
    decoder.decode(jpeg(64, 48, seed=1))
    with_short_writes(monkeypatch, most, honest=False)
    with pytest.raises(ClusterError, match="other bytes than were written"):
        decoder.decode(jpeg(64, 48, seed=2))
    monkeypatch.undo()
    assert decoder.decode(jpeg(64, 48, seed=2)).width_px == 64


def test_used_up_memory_is_not_the_images_fault(decoder: IsolatedDecoder, monkeypatch: pytest.MonkeyPatch) -> None:
    with_short_writes(monkeypatch, 0, honest=True)
    with pytest.raises(ClusterError, match="cannot be put into shared memory"):
        decoder.decode(jpeg())


def test_a_smaller_image_leaves_nothing_of_the_larger_one_before(decoder: IsolatedDecoder) -> None:
    decoder.decode(jpeg(200, 200))
    data = jpeg(9, 9)
    decoder.decode(data)
    assert decoder._child is not None
    assert os.fstat(decoder._child._requests_fd).st_size == len(data)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_the_photographs_of_phones_are_decoded_in_the_child(decoder: IsolatedDecoder, mode: str) -> None:
    """The library of HEIC is loaded before the sandbox closes."""
    heif = pytest.importorskip("pillow_heif", reason="needs the extra: pip install 'stylemill[heif]'")
    rows, columns = np.mgrid[0:240, 0:320]
    drawn_HWC = np.stack([columns * 0.8, rows, (columns + rows) * 0.4, 255 - rows], axis=-1).astype(np.uint8)
    image = Image.fromarray(drawn_HWC).convert(mode)
    buffer = io.BytesIO()
    heif.from_pillow(image).save(buffer, quality=90)
    for _ in range(2):  # nothing is missing in a child that has decoded one already
        source = decoder.decode(buffer.getvalue())
        assert (source.source_format, source.width_px, source.height_px) == ("heif", 320, 240)
        expected_HWC = np.asarray(image.convert("RGBA"))
        assert np.abs(source.image_HWC.astype(int) - expected_HWC[..., :3]).mean() < 4
        if mode == "RGBA":
            assert source.alpha_HW is not None
            assert np.abs(source.alpha_HW.astype(int) - expected_HWC[..., 3]).mean() < 4
    assert np.array_equal(source.image_HWC, decode(buffer.getvalue(), DecodeOptions()).image_HWC)
    with pytest.raises(ImageError) as cut:
        decoder.decode(buffer.getvalue()[:-200])
    assert cut.value.error_type in ("Truncated", "Corrupt")
