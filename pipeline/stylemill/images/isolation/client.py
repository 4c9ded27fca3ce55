"""Decoding where a crash or a hang costs one image: in a child process that is replaced when it dies."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import weakref
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import numpy as np

from stylemill.errors import ImageError
from stylemill.images.decode import decode, recognise
from stylemill.images.isolation.child import LENGTH, READY, options_json
from stylemill.images.isolation.transport import (
    SharedMemory,
    memory_file,
    seal_against_shrinking,
    spans,
    unpack,
    unpack_error,
)
from stylemill.images.options import DecodeOptions
from stylemill.images.source_image import SourceImage

_START_TIMEOUT_S: Final = 120.0
_MAX_ANSWER_BYTES: Final = 256 << 20
_OTHERS_SIGNALS: Final = (-signal.SIGKILL, -signal.SIGTERM)
_KEEP_BYTES: Final = 64 << 20
_KEPT_VARIABLES: Final = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TMPDIR", "TZ")


class DecoderStartError(RuntimeError):
    """The decoding child cannot be started on this machine: no image's fault."""


class _ChildDied(Exception):
    """The child went away in the middle of a request."""

    def __init__(self, return_code: int) -> None:
        self.return_code = return_code
        super().__init__(return_code)


class IsolatedDecoder:
    """Decodes images in a child process that is started once and reused.

    Safe to call from several threads; requests are served one after the other, in order. ``submit`` decodes
    ahead while the caller computes. With ``isolate_decoding`` off, the same interface decodes here.

    The verdict that an image crashes or exhausts the decoder always comes from a fresh child: an older one
    may have been damaged by an image before, so the image gets a second try.
    """

    def __init__(self, options: DecodeOptions) -> None:
        self.options = options
        # A thread of its own starts every child: the kernel ties a child to the thread that started it.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="decoder")
        self._child: _Child | None = None
        if options.isolate_decoding:
            self._thread.submit(self._living_child)

    def submit(self, data: bytes) -> Future[SourceImage]:
        """Begin to decode one source; the future raises what ``decode`` raises."""
        return self._thread.submit(self._decode, data)

    def decode(self, data: bytes) -> SourceImage:
        """Decode one source.

        Raises:
            ImageError: as ``stylemill.images.decode.decode``, and ``DecoderCrash``, ``DecodeTimeout``.
            NotAnImage: the bytes are no image.
            DecoderStartError: the machine cannot start the child.
        """
        return self.submit(data).result()

    def close(self) -> None:
        """End the child. A decoder that was closed decodes no more."""
        self._thread.submit(self._drop_child)
        self._thread.shutdown(wait=True)

    def __enter__(self) -> IsolatedDecoder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[type[IsolatedDecoder], tuple[DecodeOptions]]:
        return IsolatedDecoder, (self.options,)

    def _decode(self, data: bytes) -> SourceImage:
        if not self.options.isolate_decoding:
            return decode(data, self.options)
        recognise(data, self.options)
        num_killed = 0
        while True:
            child = self._living_child()
            is_fresh = child.num_served == 0
            try:
                return child.decode(data)
            except _ChildDied as death:
                self._drop_child()
                # Somebody else's signal (the machine's out-of-memory killer) says little about this image.
                num_killed += death.return_code in _OTHERS_SIGNALS
                if num_killed == 2 or (is_fresh and death.return_code not in _OTHERS_SIGNALS):
                    raise ImageError("DecoderCrash", _crash_sentence(death.return_code)) from death
            except ImageError as error:
                if error.error_type == "DecodeTimeout":
                    self._drop_child()
                if error.error_type != "DecoderMemory":
                    raise
                self._drop_child()
                if is_fresh:
                    raise

    def _living_child(self) -> _Child:
        if self._child is not None and not self._child.is_alive():
            self._drop_child()
        if self._child is None:
            self._child = _Child(self.options)
        return self._child

    def _drop_child(self) -> None:
        if self._child is not None:
            self._child.end()
            self._child = None


class _Child:
    """One child process, its socket, and the memory shared with it."""

    def __init__(self, options: DecodeOptions) -> None:
        self.options = options
        self.num_served = 0
        self._requests_fd = memory_file("decode-request")
        self._pixels_fd = memory_file("decode-pixels")
        seal_against_shrinking(self._pixels_fd)
        self._pixels = SharedMemory(self._pixels_fd)
        self._connection, theirs = socket.socketpair()
        with tempfile.TemporaryFile() as complaints, theirs:
            self._process = _start(theirs.fileno(), self._requests_fd, self._pixels_fd, options, complaints)
            self._finalizer = weakref.finalize(
                self, _end, self._process, self._connection, (self._requests_fd, self._pixels_fd)
            )
            self._await_ready(complaints)

    def decode(self, data: bytes) -> SourceImage:
        """Have one image decoded.

        Raises:
            ImageError: what the child says, or ``DecodeTimeout``, after which the child must be replaced.
            _ChildDied: the child must be replaced.
        """
        deadline = time.monotonic() + self.options.decode_timeout_s
        os.pwrite(self._requests_fd, data, 0)
        try:
            self._connection.sendall(LENGTH.pack(len(data)))
            (length,) = LENGTH.unpack(self._receive(LENGTH.size, deadline))
            if length > _MAX_ANSWER_BYTES:
                raise ValueError(f"an answer of {length} bytes")
            header: dict[str, Any] = json.loads(self._receive(length, deadline))
            error = unpack_error(header)
            source = None if error else unpack(header, self._take_arrays(header["arrays"]))
        except TimeoutError as hang:
            limit_s = self.options.decode_timeout_s
            raise ImageError("DecodeTimeout", f"decoding it took longer than {limit_s:g} s and was given up") from hang
        except (OSError, ValueError, KeyError, TypeError) as broken:
            raise _ChildDied(self._await_death()) from broken
        finally:
            if len(data) > _KEEP_BYTES:
                os.ftruncate(self._requests_fd, 0)
        self.num_served += 1
        if error:
            raise error
        assert source is not None
        return source

    def _await_death(self) -> int:
        """Return how the process ended, once its socket has failed."""
        try:
            return self._process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def is_alive(self) -> bool:
        """Tell whether the process still runs."""
        return self._process.poll() is None

    def end(self) -> None:
        """Kill the process and free what it shared."""
        self._finalizer()

    def _await_ready(self, complaints: Any) -> None:
        try:
            ready = self._receive(len(READY), time.monotonic() + _START_TIMEOUT_S)
        except OSError as error:
            self.end()
            complaints.seek(0)
            why = complaints.read()[-500:].decode(errors="replace").strip() or str(error)
            raise DecoderStartError(f"the process that decodes images did not start: {why}") from error
        assert ready == READY

    def _receive(self, num_bytes: int, deadline: float) -> bytes:
        """Read exactly so many bytes.

        Raises:
            TimeoutError: not before the deadline.
            ConnectionError: the child has closed its end.
        """
        parts = []
        while num_bytes:
            remaining_s = deadline - time.monotonic()
            if remaining_s <= 0:
                raise TimeoutError
            self._connection.settimeout(remaining_s)
            part = self._connection.recv(min(num_bytes, 1 << 20))
            if not part:
                raise ConnectionError("the decoding process closed its socket")
            parts.append(part)
            num_bytes -= len(part)
        return b"".join(parts)

    def _take_arrays(self, described: list[list[Any]]) -> list[np.ndarray]:
        """Copy the pixels out of the shared memory, which the next image will overwrite."""
        placed, num_bytes = spans(described)
        memory = self._pixels.view(num_bytes)
        arrays = [np.ndarray(shape, dtype, memory, offset).copy() for offset, dtype, shape in placed]
        if num_bytes > _KEEP_BYTES:
            self._pixels.forget()
        return arrays


def _start(
    connection_fd: int, requests_fd: int, pixels_fd: int, options: DecodeOptions, complaints: Any
) -> subprocess.Popen[bytes]:
    root = str(Path(__file__).resolve().parents[2])
    environment = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    environment |= {
        "PYTHONPATH": os.pathsep.join([root, *(os.path.abspath(path) for path in sys.path)]),  # noqa: PTH100
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "1",
    }
    fds = (connection_fd, requests_fd, pixels_fd)
    numbers = [str(number) for number in (*fds, os.getpid())]
    return subprocess.Popen(
        [sys.executable, "-S", "-m", "stylemill.images.isolation.child", *numbers, options_json(options)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=complaints,
        pass_fds=fds,
        env=environment,
        cwd="/",
    )


def _end(process: subprocess.Popen[bytes], connection: socket.socket, fds: tuple[int, ...]) -> None:
    connection.close()
    process.kill()
    process.wait()
    for fd in fds:
        os.close(fd)


def _crash_sentence(return_code: int) -> str:
    names = {-number: number.name for number in signal.Signals}
    how = f"was killed by {names[return_code]}" if return_code in names else f"ended with code {return_code}"
    return f"the image library crashed on it: the decoding process {how}; other images are not affected"
