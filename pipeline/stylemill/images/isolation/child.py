"""The child process that decodes untrusted images: ``python -m stylemill.images.isolation.child``.

It is given a socket and two shared memory files as numbers on its command line, and nothing else: no
credentials, no other open file. It answers each request (the number of bytes that lie in the first memory
file) with JSON and the pixels in the second. It ends when its parent does.
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
from PIL import Image, PngImagePlugin

from stylemill.errors import ImageError
from stylemill.images.decode import decode
from stylemill.images.isolation.transport import SharedMemory, pack, pack_error, spans
from stylemill.images.options import DecodeOptions

LENGTH: Final = struct.Struct("<Q")
READY: Final = b"ready\n"
_LONGEST_PNG_CHUNK: Final = 16 << 20
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NO_NEW_PRIVS: Final = 38


def main(arguments: list[str]) -> None:
    """Answer requests until the parent closes the socket.

    Args:
        arguments: numbers of the socket, of the memory files for requests and for pixels, and of the parent
            process; then the options as JSON.
    """
    connection_fd, request_fd, pixels_fd, parent_pid = (int(number) for number in arguments[:4])
    options = DecodeOptions(**json.loads(arguments[4]))
    _harden(parent_pid, options.decoder_memory_bytes)
    # max_pixels is checked before anything is decoded; this is for pictures inside a file (icons), whose size no
    # header outside them tells: Pillow refuses what has more than twice as many.
    Image.MAX_IMAGE_PIXELS = -(-options.max_pixels // 2)
    PngImagePlugin.MAX_TEXT_CHUNK = _LONGEST_PNG_CHUNK  # profiles and XMP of more than Pillow's 1 MiB are real
    warnings.simplefilter("ignore")
    gc.freeze()
    with socket.socket(fileno=connection_fd) as connection:
        connection.sendall(READY)
        _silence()
        pixels = SharedMemory(pixels_fd)
        while request := connection.recv(LENGTH.size, socket.MSG_WAITALL):
            data = os.pread(request_fd, LENGTH.unpack(request)[0], 0)
            answer = json.dumps(_answer(data, options, pixels)).encode()
            connection.sendall(LENGTH.pack(len(answer)) + answer)


def _answer(data: bytes, options: DecodeOptions, pixels: SharedMemory) -> dict[str, Any]:
    try:
        header, arrays = pack(decode(data, options))
        placed, num_bytes = spans(header["arrays"])
        memory = pixels.grow(num_bytes)
        for array, (offset, dtype, shape) in zip(arrays, placed, strict=True):
            np.ndarray(shape, dtype, memory, offset)[...] = array
    except ImageError as error:
        return pack_error(error)
    except MemoryError:
        return pack_error(ImageError("DecoderMemory", "its pixels take more memory than decoder_memory_bytes"))
    return header


def _harden(parent_pid: int, memory_bytes: int) -> None:
    """Give up what decoding does not need, and tie this process's life to its parent's.

    Elsewhere than on Linux the child ends when its parent's end of the socket closes, and memory is not limited.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    if os.getppid() != parent_pid:  # it died before the lines above
        os._exit(0)


def _silence() -> None:
    """Send what C libraries print about damaged files nowhere; until here it told why the start failed."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)


def options_json(options: DecodeOptions) -> str:
    """Return options as the child's command line takes them."""
    return json.dumps(dataclasses.asdict(options))


if __name__ == "__main__":
    main(sys.argv[1:])
