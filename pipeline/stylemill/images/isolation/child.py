"""The child process that decodes untrusted images: ``python -m stylemill.images.isolation.child``.

``client.py`` starts it. Its command line gives the file descriptors of a socket and of two shared memory files; it has
no credentials, no other open file, and cannot open one (``sandbox.py``). A request on the socket is the length and the
digest of the image in the first memory file. The response is a length, JSON on the socket and pixels in the second
memory file. The child ends when its parent does.
"""

from __future__ import annotations

import ctypes
import dataclasses
import gc
import json
import os
import resource
import signal
import socket
import struct
import sys
import warnings
from typing import Any, Final

import numpy as np
from PIL import Image

from stylemill.errors import ImageError
from stylemill.images.decode import decode
from stylemill.images.formats.plugins import import_plugins
from stylemill.images.isolation.sandbox import enter_sandbox
from stylemill.images.isolation.transport import (
    DAMAGED,
    REQUEST,
    RequestDamaged,
    SharedMemory,
    pack,
    pack_error,
    place_arrays,
    read_request,
)
from stylemill.images.options import DecodeOptions
from stylemill.images.short_side import decode_short_side

LENGTH: Final = struct.Struct("<Q")
READY: Final = b"ready\n"
_PR_SET_PDEATHSIG: Final = 1


def main(arguments: list[str]) -> None:
    """Serve requests until the parent closes the socket.

    Args:
        arguments: file descriptors of the socket and of the memory files for requests and for pixels, the process id
            of the parent, the options as JSON, and the shorter side of the results in pixels or 0 for their own size.
    """
    connection_fd, request_fd, pixels_fd, parent_pid = (int(number) for number in arguments[:4])
    options, short_side_px = DecodeOptions(**json.loads(arguments[4])), int(arguments[5])
    _harden(parent_pid, options.decoder_memory_bytes)
    # max_pixels is checked before anything is decoded. This limit is for images inside a file (icons), whose size the
    # outer header does not contain; Pillow raises an error at twice the limit.
    Image.MAX_IMAGE_PIXELS = -(-options.max_pixels // 2)
    warnings.simplefilter("ignore")
    import_plugins()
    gc.freeze()
    null_fd = os.open(os.devnull, os.O_RDWR)
    enter_sandbox()
    with socket.socket(fileno=connection_fd) as connection:
        connection.sendall(READY)
        _discard_output(null_fd)
        pixels = SharedMemory(pixels_fd)
        while request := connection.recv(REQUEST.size, socket.MSG_WAITALL):
            try:
                header = _respond(read_request(request_fd, request), options, short_side_px, pixels)
            except RequestDamaged:
                header = DAMAGED
            response = json.dumps(header).encode()
            connection.sendall(LENGTH.pack(len(response)) + response)


def _respond(data: bytes, options: DecodeOptions, short_side_px: int, pixels: SharedMemory) -> dict[str, Any]:
    """Decode one image into the shared memory; return the header of the result or the error."""
    try:
        source = decode_short_side(data, short_side_px, options) if short_side_px else decode(data, options)
        header, arrays = pack(source)
        placed, num_bytes = place_arrays(header["arrays"])
        memory = pixels.grow(num_bytes)
        for array, (offset, dtype, shape) in zip(arrays, placed, strict=True):
            np.ndarray(shape, dtype, memory, offset)[...] = array
    except ImageError as error:
        return pack_error(_forbidden(error) or error)
    except MemoryError:
        return pack_error(ImageError("DecoderMemory", "its pixels need more memory than decoder_memory_bytes"))
    return header


def _forbidden(error: BaseException) -> ImageError | None:
    """Return an error that blames the sandbox if a file was missing that it forbids: the image may be sound."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, PermissionError) and seen.filename:
            reason = f"decoding it needs {seen.filename}, which the decoder's sandbox forbids; please report this"
            return ImageError("DecoderForbidden", f"{reason}, and use --no-isolate-decoding for sources that you trust")
        seen = seen.__cause__ or seen.__context__
    return None


def _harden(parent_pid: int, memory_bytes: int) -> None:
    """Drop privileges that decoding does not need, limit memory, and end this process when its parent ends.

    On systems other than Linux the child ends when the parent's end of the socket closes, and memory is not limited.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    if os.getppid() != parent_pid:  # the parent died before the death signal was set
        os._exit(0)


def _discard_output(null_fd: int) -> None:
    """Discard what C libraries print about damaged files; during the start the output explains a failure."""
    for stream in (0, 1, 2):
        os.dup2(null_fd, stream)


def options_json(options: DecodeOptions) -> str:
    """Return options as JSON, the last argument of the child's command line."""
    return json.dumps(dataclasses.asdict(options))


if __name__ == "__main__":
    main(sys.argv[1:])
