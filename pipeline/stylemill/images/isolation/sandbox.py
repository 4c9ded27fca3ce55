"""What the decoder's child gives up before it reads its first image: files, sockets, processes, and its parent.

Three layers, each only where the kernel has it: Landlock (no file, no TCP, no signals to others), a seccomp filter (no
call that opens, executes, connects or inspects; such calls return EPERM, so that a library which looks for a file
carries on), and, in the parent, ``PR_SET_DUMPABLE``, without which processes of the same user may read its environment.
Everything that decoding needs must be imported before ``enter_sandbox``.

Numbers are those of the Linux kernel's interface (``man 7 landlock``, ``man 2 seccomp``) for x86-64 and 64-bit Arm.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys
from typing import Final

_PR_SET_DUMPABLE: Final = 4
_PR_SET_NO_NEW_PRIVS: Final = 38

# Landlock: the same numbers on all machines.
_LANDLOCK_CREATE_RULESET: Final = 444
_LANDLOCK_RESTRICT_SELF: Final = 446
_LANDLOCK_VERSION: Final = 1
_FILE_RIGHTS: Final = ((1, 13), (2, 14), (3, 15), (5, 16))
"""From this version on, so many kinds of access to files are known."""
_NET_VERSION, _SCOPE_VERSION = 4, 6

# seccomp
_SET_MODE_FILTER: Final = 1
_TSYNC: Final = 1
_ALLOW: Final = 0x7FFF0000
_FAIL: Final = 0x00050000
_CLONE_THREAD: Final = 0x00010000
_LOAD, _JUMP_IF_EQUAL, _JUMP_IF_SET, _JUMP_IF_AT_LEAST, _RETURN = 0x20, 0x15, 0x45, 0x35, 0x06
_NUMBER_AT, _MACHINE_AT, _FIRST_ARGUMENT_AT = 0, 4, 16
"""Offsets in ``struct seccomp_data``."""
_X32: Final = 0x40000000
"""Bit of the calls of x86-64's second interface, none of which is allowed."""

_CALLS: Final[dict[str, tuple[int | None, int | None]]] = {
    # files
    "open": (2, None),
    "openat": (257, 56),
    "creat": (85, None),
    "openat2": (437, 437),
    "open_by_handle_at": (304, 265),
    "unlink": (87, None),
    "unlinkat": (263, 35),
    "rename": (82, None),
    "renameat": (264, 38),
    "renameat2": (316, 276),
    "link": (86, None),
    "linkat": (265, 37),
    "symlink": (88, None),
    "symlinkat": (266, 36),
    "mkdir": (83, None),
    "mkdirat": (258, 34),
    "rmdir": (84, None),
    "chmod": (90, None),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "fchmod": (91, 52),
    "chown": (92, None),
    "fchown": (93, 55),
    "lchown": (94, None),
    "fchownat": (260, 54),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "setxattrat": (463, 463),
    "removexattrat": (466, 466),
    "utimensat": (280, 88),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "truncate": (76, 45),
    "mknod": (133, None),
    "mknodat": (259, 33),
    "mount": (165, 40),
    "umount2": (166, 39),
    "chroot": (161, 51),
    "pivot_root": (155, 41),
    # programs and processes
    "execve": (59, 221),
    "execveat": (322, 281),
    "fork": (57, None),
    "vfork": (58, None),
    "unshare": (272, 97),
    "setns": (308, 268),
    # sockets
    "socket": (41, 198),
    "socketpair": (53, 199),
    "connect": (42, 203),
    "bind": (49, 200),
    "listen": (50, 201),
    "accept": (43, 202),
    "accept4": (288, 242),
    # other processes
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kill": (62, 129),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "pidfd_send_signal": (424, 424),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "tkill": (200, 130),
    "prlimit64": (302, 261),
    "setpriority": (141, 140),
    "ioprio_set": (251, 30),
    "sched_setaffinity": (203, 122),
    "sched_setscheduler": (144, 119),
    "sched_setparam": (142, 118),
    "sched_setattr": (314, 274),
    "process_madvise": (440, 440),
    # memory and messages shared with others
    "shmget": (29, 194),
    "shmat": (30, 196),
    "shmctl": (31, 195),
    "msgget": (68, 186),
    "msgsnd": (69, 189),
    "msgrcv": (70, 188),
    "semget": (64, 190),
    "semop": (65, 193),
    "semtimedop": (220, 192),
    "mq_open": (240, 180),
    # ways around this filter, and into the kernel
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "userfaultfd": (323, 282),
}
"""Calls that fail with EPERM, as ``clone`` does unless it starts a thread: name -> number on x86-64 and 64-bit Arm."""


class _Machine:
    """Numbers of one kind of processor.

    Args:
        audit_code: its name in ``struct seccomp_data``.
        seccomp: number of the call itself.
        clone: number of the call that starts threads and processes.
        clone3: its successor, whose arguments a filter cannot see; it fails with ENOSYS, and libc uses ``clone``.
        tgkill: number of the call that sends a signal to a thread; allowed to this process's own, for ``abort``.
        column: of ``_CALLS``.
    """

    def __init__(self, audit_code: int, *, seccomp: int, clone: int, clone3: int, tgkill: int, column: int) -> None:
        self.audit_code, self.seccomp = audit_code, seccomp
        self.clone, self.clone3, self.tgkill = clone, clone3, tgkill
        self.forbidden = [number for numbers in _CALLS.values() if (number := numbers[column]) is not None]


_MACHINES: Final = {
    "x86_64": _Machine(0xC000003E, seccomp=317, clone=56, clone3=435, tgkill=234, column=0),
    "aarch64": _Machine(0xC00000B7, seccomp=277, clone=220, clone3=435, tgkill=131, column=1),
}


def protect_environment() -> None:
    """Keep other processes of this user from reading this process's memory and environment; also turns core dumps off.

    Root may read them in spite of this.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def enter_sandbox() -> list[str]:
    """Give up files, sockets and other processes for good; return the names of the layers that this kernel has."""
    if sys.platform != "linux":
        return []
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    layers = [("landlock", _restrict_files), ("seccomp", _filter_calls)]
    return [name for name, enter in layers if enter(libc)]


def _restrict_files(libc: ctypes.CDLL) -> bool:
    version = libc.syscall(_LANDLOCK_CREATE_RULESET, None, 0, _LANDLOCK_VERSION)
    if version < 1:
        return False
    files = (1 << next(count for since, count in reversed(_FILE_RIGHTS) if version >= since)) - 1
    # struct landlock_ruleset_attr: what is named here and not allowed by a rule is denied; there are no rules.
    attributes = struct.pack("<Q", files)
    if version >= _NET_VERSION:
        attributes += struct.pack("<Q", 3)  # bind and connect
    if version >= _SCOPE_VERSION:
        attributes += struct.pack("<Q", 3)  # abstract sockets and signals
    ruleset = libc.syscall(_LANDLOCK_CREATE_RULESET, attributes, len(attributes), 0)
    if ruleset < 0:
        return False
    entered = libc.syscall(_LANDLOCK_RESTRICT_SELF, ruleset, 0) == 0
    os.close(ruleset)
    return bool(entered)


def _filter_calls(libc: ctypes.CDLL) -> bool:
    machine = _MACHINES.get(platform.machine())
    if machine is None:
        return False
    program = _program(machine)
    buffer = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: number of instructions, padding, address.
    header = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(buffer))
    return bool(libc.syscall(machine.seccomp, _SET_MODE_FILTER, _TSYNC, header) == 0)


def _program(machine: _Machine) -> bytes:
    """Return the filter as instructions of classic BPF: (code, jump if true, jump if false, value)."""
    fail = _FAIL | errno.EPERM
    lines: list[tuple[int, int, int, int]] = [
        (_LOAD, 0, 0, _MACHINE_AT),
        (_JUMP_IF_EQUAL, 1, 0, machine.audit_code),
        (_RETURN, 0, 0, fail),
        (_LOAD, 0, 0, _NUMBER_AT),
        (_JUMP_IF_AT_LEAST, 0, 1, _X32),
        (_RETURN, 0, 0, fail),
        (_JUMP_IF_EQUAL, 0, 1, machine.clone3),
        (_RETURN, 0, 0, _FAIL | errno.ENOSYS),
    ]
    for number in machine.forbidden:
        lines += [(_JUMP_IF_EQUAL, 0, 1, number), (_RETURN, 0, 0, fail)]
    lines += [
        (_JUMP_IF_EQUAL, 0, 4, machine.clone),
        (_LOAD, 0, 0, _FIRST_ARGUMENT_AT),
        (_JUMP_IF_SET, 1, 0, _CLONE_THREAD),
        (_RETURN, 0, 0, fail),
        (_RETURN, 0, 0, _ALLOW),
        (_JUMP_IF_EQUAL, 0, 3, machine.tgkill),
        (_LOAD, 0, 0, _FIRST_ARGUMENT_AT),
        (_JUMP_IF_EQUAL, 1, 0, os.getpid()),
        (_RETURN, 0, 0, fail),
        (_RETURN, 0, 0, _ALLOW),
    ]
    return b"".join(struct.pack("HBBI", *line) for line in lines)
