"""``IsolatedDecoder``: decode images in a child process that is replaced when it crashes, hangs or runs out of memory.

This is the parent's side of the isolation; ``child.py`` is the other side and ``transport.py`` the format between them.
Bytes and pixels are transferred through two shared memory files, requests and headers through a socket.
"""

from __future__ import annotations

import functools
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

import stylemill
from stylemill.errors import ClusterError, ImageError
from stylemill.images.decode import decode, recognise
from stylemill.images.isolation.child import LENGTH, READY, options_json
from stylemill.images.isolation.sandbox import protect_environment
from stylemill.images.isolation.transport import (
    RequestDamaged,
    SharedMemory,
    create_memory_file,
    forbid_shrinking,
    place_arrays,
    unpack,
    unpack_error,
    write_request,
)
from stylemill.images.options import DecodeOptions
from stylemill.images.short_side import decode_short_side
from stylemill.images.source_image import SourceImage

_START_TIMEOUT_S: Final = 120.0
_MAX_HEADER_BYTES: Final = 256 << 20
_EXTERNAL_SIGNALS: Final = (-signal.SIGKILL, -signal.SIGTERM)
"""Return codes of a child that another process has killed, such as the machine's out-of-memory killer."""
_KEEP_BYTES: Final = 64 << 20
"""Shared memory larger than this is released after each image."""
_KEPT_VARIABLES: Final = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TMPDIR", "TZ")


class _ChildDied(Exception):
    """The child process ended during a request."""

    def __init__(self, return_code: int) -> None:
        self.return_code = return_code
        super().__init__(return_code)


class IsolatedDecoder:
    """Decode images in a child process that is started once and reused.

    The methods may be called from several threads; requests are served one at a time, in order. ``submit`` decodes
    while the caller computes. With ``isolate_decoding`` off, the same interface decodes in this process.

    ``DecoderCrash`` and ``DecoderMemory`` are reported only after a failure in a fresh child. A child that has decoded
    other images may have been damaged by one of them, so the image is tried again.

    Args:
        options: limits, and which frames are decoded.
        short_side_px: if given, ``decode_short_side`` decodes with it.
    """

    def __init__(self, options: DecodeOptions, short_side_px: int | None = None) -> None:
        self.options, self._short_side_px = options, short_side_px
        # One thread starts every child and outlives it: the kernel sends a child its death signal when the thread that
        # started it ends.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="decoder")
        self._child: _Child | None = None
        self._is_aborted = False
        if options.isolate_decoding:
            self._thread.submit(self._living_child)

    def submit(self, data: bytes) -> Future[SourceImage]:
        """Start to decode one source; the future raises what ``decode`` raises."""
        return self._thread.submit(self._decode, data)

    def decode(self, data: bytes) -> SourceImage:
        """Decode one source.

        Raises:
            ImageError: as ``stylemill.images.decode.decode``, and ``DecoderCrash``, ``DecodeTimeout``.
            NotAnImage: the bytes are not an image.
            ClusterError: this machine cannot start the child or give it the image; the image is not the cause.
        """
        return self.submit(data).result()

    def close(self) -> None:
        """End the child. A closed decoder cannot be used again."""
        self._thread.submit(self._drop_child)
        self._thread.shutdown(wait=True)

    def abort(self) -> None:
        """End the child at once, as after Ctrl-C: images that are being decoded or wait for it fail."""
        self._is_aborted = True
        child = self._child
        if child is not None:
            child.kill()
        self.close()

    def __enter__(self) -> IsolatedDecoder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:  # nobody waits for the images any more
            self.abort()

    def __reduce__(self) -> tuple[type[IsolatedDecoder], tuple[DecodeOptions, int | None]]:
        return IsolatedDecoder, (self.options, self._short_side_px)

    def _decode(self, data: bytes) -> SourceImage:
        if not self.options.isolate_decoding:
            if self._short_side_px:
                return decode_short_side(data, self._short_side_px, self.options)
            return decode(data, self.options)
        recognise(data, self.options)
        num_killed = num_damaged = 0
        while True:
            # A child that started during an abort was not there to be killed.
            child = None if self._is_aborted else self._living_child()
            if child is None or self._is_aborted:
                raise ImageError("DecoderCrash", "the decoding process was ended")
            is_fresh = child.num_served == 0
            try:
                return child.decode(data)
            except _ChildDied as death:
                self._drop_child()
                # One external signal is not evidence against this image; a second one is.
                num_killed += death.return_code in _EXTERNAL_SIGNALS
                if num_killed == 2 or (is_fresh and death.return_code not in _EXTERNAL_SIGNALS):
                    raise ImageError("DecoderCrash", _crash_message(death.return_code)) from death
            except RequestDamaged as damage:
                self._drop_child()
                num_damaged += 1
                if num_damaged == 2:
                    raise _cannot_decode(str(damage)) from damage
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
            self._child = _Child(self.options, self._short_side_px)
        return self._child

    def _drop_child(self) -> None:
        if self._child is not None:
            self._child.end()
            self._child = None


@functools.cache
def _own_decoder() -> IsolatedDecoder:
    return IsolatedDecoder(DecodeOptions())


def decode_isolated(data: bytes) -> SourceImage:
    """Decode one image in a child process that this process keeps for such single images.

    Raises:
        ImageError: as ``IsolatedDecoder.decode``.
        NotAnImage: the bytes are not an image.
        ClusterError: this machine cannot start the child or give it the image.
    """
    return _own_decoder().decode(data)


class _Child:
    """One child process with its socket and shared memory files."""

    def __init__(self, options: DecodeOptions, short_side_px: int | None) -> None:
        self.options = options
        self.num_served = 0
        self._requests_fd = create_memory_file("decode-request")
        self._pixels_fd = create_memory_file("decode-pixels")
        forbid_shrinking(self._pixels_fd)
        self._pixels = SharedMemory(self._pixels_fd)
        self._connection, child_connection = socket.socketpair()
        with tempfile.TemporaryFile() as stderr, child_connection:
            fds = (child_connection.fileno(), self._requests_fd, self._pixels_fd)
            self._process = _start(fds, [options_json(options), str(short_side_px or 0)], stderr)
            self._finalizer = weakref.finalize(
                self, _end, self._process, self._connection, (self._requests_fd, self._pixels_fd)
            )
            self._wait_until_ready(stderr)

    def decode(self, data: bytes) -> SourceImage:
        """Decode one image in the child.

        Raises:
            ImageError: the child's error, or ``DecodeTimeout``, after which the child must be replaced.
            RequestDamaged: the child has read other bytes, or memory for them is used up; it must be replaced.
            _ChildDied: the child must be replaced.
        """
        deadline = time.monotonic() + self.options.decode_timeout_s
        try:
            request = write_request(self._requests_fd, data)
        except OSError as full:
            raise RequestDamaged(f"an image cannot be put into shared memory: {full}") from full
        try:
            self._connection.sendall(request)
            (length,) = LENGTH.unpack(self._receive(LENGTH.size, deadline))
            if length > _MAX_HEADER_BYTES:
                raise ValueError(f"a header of {length} bytes")
            header: dict[str, Any] = json.loads(self._receive(length, deadline))
            error = unpack_error(header)
            source = None if error else unpack(header, self._copy_arrays(header["arrays"]))
        except TimeoutError as hang:
            limit_s = self.options.decode_timeout_s
            raise ImageError("DecodeTimeout", f"decoding took longer than {limit_s:g} s and was stopped") from hang
        except (OSError, ValueError, KeyError, TypeError) as broken:
            raise _ChildDied(self._wait_for_exit()) from broken
        finally:
            if len(data) > _KEEP_BYTES:
                os.ftruncate(self._requests_fd, 0)
        self.num_served += 1
        if error:
            raise error
        assert source is not None
        return source

    def _wait_for_exit(self) -> int:
        """Return the return code of the process after its socket has failed; kill it if it has not ended."""
        try:
            return self._process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def is_alive(self) -> bool:
        """Return whether the process is running."""
        return self._process.poll() is None

    def kill(self) -> None:
        """Kill the process; safe while another thread waits for it, which gets ``_ChildDied``."""
        self._process.kill()

    def end(self) -> None:
        """Kill the process; close the socket and the shared memory files."""
        self._finalizer()

    def _wait_until_ready(self, stderr: Any) -> None:
        try:
            ready = self._receive(len(READY), time.monotonic() + _START_TIMEOUT_S)
        except OSError as error:
            self.end()
            stderr.seek(0)
            reason = stderr.read()[-500:].decode(errors="replace").strip() or str(error)
            raise _cannot_decode(f"the process for it did not start: {reason}") from error
        assert ready == READY

    def _receive(self, num_bytes: int, deadline: float) -> bytes:
        """Read exactly ``num_bytes`` from the socket.

        Raises:
            TimeoutError: the deadline, in seconds of ``time.monotonic``, has passed.
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

    def _copy_arrays(self, descriptions: list[list[Any]]) -> list[np.ndarray]:
        """Copy the pixels out of the shared memory, which the next image will overwrite."""
        placed, num_bytes = place_arrays(descriptions)
        memory = self._pixels.view(num_bytes)
        arrays = [np.ndarray(shape, dtype, memory, offset).copy() for offset, dtype, shape in placed]
        if num_bytes > _KEEP_BYTES:
            self._pixels.release()
        return arrays


def _start(fds: tuple[int, int, int], settings: list[str], stderr: Any) -> subprocess.Popen[bytes]:
    """Start a fresh interpreter that inherits three file descriptors and none of the secrets in the environment."""
    protect_environment()
    root = str(Path(stylemill.__file__).resolve().parents[1])
    environment = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    environment |= {
        "PYTHONPATH": os.pathsep.join([root, *(os.path.abspath(path) for path in sys.path)]),  # noqa: PTH100
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "1",
    }
    numbers = [str(number) for number in (*fds, os.getpid())]
    return subprocess.Popen(
        [sys.executable, "-S", "-m", "stylemill.images.isolation.child", *numbers, *settings],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=stderr,
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


def _cannot_decode(reason: str) -> ClusterError:
    return ClusterError(f"this machine cannot decode images ({reason}); free memory or processes")


def _crash_message(return_code: int) -> str:
    names = {-number: number.name for number in signal.Signals}
    how = f"was killed by {names[return_code]}" if return_code in names else f"ended with code {return_code}"
    return f"the image library crashed: the decoding process {how}; other images are not affected"
