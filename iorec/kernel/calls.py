# SPDX-License-Identifier: GPL-2.0-only
"""Knows the system calls that can be recorded: their numbers, and where their arguments are."""

import difflib
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from analyze.errors import IorecError

# Of bpf/records.h.
FIRST_CALL_OP = 64
FIRST_AIO_OP, FIRST_URING_OP = 144, 160
# IOCB_CMD_ of include/uapi/linux/aio_abi.h.
_AIO_OPS = {0: "pread", 1: "pwrite", 2: "fsync", 3: "fdsync", 5: "poll", 7: "preadv", 8: "pwritev"}
WAIT_OPS = {140: "blocked", 141: "preempted"}
AIO_OPS = {FIRST_AIO_OP + number: name for number, name in _AIO_OPS.items()}
# By bit; the first ones are IOSQE_ of include/uapi/linux/io_uring.h.
CALL_FLAGS = {
    8: "fixed_file",
    9: "drain",
    10: "link",
    11: "hardlink",
    12: "async",
    13: "buffer_select",
    16: "restarted",
    17: "nowait",
    18: "sqpoll",
}

_NOWHERE = 7  # of bpf/syscall.c, as those that follow
_POSITION = 6  # the offset is the position of the file
_RESULT = 6  # the file is what the call opened
_VECTOR, _WRITE, _MAPPING = 1, 2, 4
_MOST_CALLS = 512
_CALL = struct.Struct("=6B2x")  # struct call
_IS_COMPAT = 6  # where that is in one


@dataclass(frozen=True)
class Call:
    """A system call: its number on x86-64, and which argument (from 0) says what.

    Calls with a _VECTOR have their size in memory that may not be read then: how much they were
    asked for is taken to be what they moved.
    """

    name: str
    number: int
    file: int = _NOWHERE
    offset: int = _NOWHERE
    size: int = _NOWHERE
    flags: int = _NOWHERE
    kind: int = 0
    is_default: bool = True


# Source: arch/x86/entry/syscalls/syscall_64.tbl, and the SYSCALL_DEFINEs.
CALLS = (
    Call("read", 0, file=0, offset=_POSITION, size=2),
    Call("write", 1, file=0, offset=_POSITION, size=2, kind=_WRITE),
    Call("pread64", 17, file=0, offset=3, size=2),
    Call("pwrite64", 18, file=0, offset=3, size=2, kind=_WRITE),
    Call("readv", 19, file=0, offset=_POSITION, kind=_VECTOR),
    Call("writev", 20, file=0, offset=_POSITION, kind=_VECTOR | _WRITE),
    Call("preadv", 295, file=0, offset=3, kind=_VECTOR),
    Call("pwritev", 296, file=0, offset=3, kind=_VECTOR | _WRITE),
    Call("preadv2", 327, file=0, offset=3, flags=5, kind=_VECTOR),
    Call("pwritev2", 328, file=0, offset=3, flags=5, kind=_VECTOR | _WRITE),
    Call("fsync", 74, file=0),
    Call("fdatasync", 75, file=0),
    Call("sync_file_range", 277, file=0, offset=1, size=2),
    Call("sync", 162),
    Call("syncfs", 306, file=0),
    Call("msync", 26, size=1),
    Call("open", 2, file=_RESULT),
    Call("creat", 85, file=_RESULT),
    Call("openat", 257, file=_RESULT),
    Call("openat2", 437, file=_RESULT),
    Call("close", 3, file=0),
    Call("truncate", 76),
    Call("ftruncate", 77, file=0),
    Call("fallocate", 285, file=0, offset=2, size=3),
    Call("copy_file_range", 326, file=0, size=4),
    Call("sendfile", 40, file=1, size=3),
    Call("splice", 275, file=0, size=4),
    Call("fadvise64", 221, file=0, offset=1, size=2),
    Call("readahead", 187, file=0, offset=1, size=2),
    Call("getdents64", 217, file=0, size=2),
    Call("unlink", 87),
    Call("unlinkat", 263),
    Call("rename", 82),
    Call("renameat", 264),
    Call("renameat2", 316),
    Call("io_submit", 209),
    Call("io_getevents", 208),
    Call("io_pgetevents", 333),
    Call("io_uring_enter", 426),
    Call("stat", 4, is_default=False),
    Call("fstat", 5, file=0, is_default=False),
    Call("lstat", 6, is_default=False),
    Call("newfstatat", 262, is_default=False),
    Call("statx", 332, is_default=False),
    Call("statfs", 137, is_default=False),
    Call("fstatfs", 138, file=0, is_default=False),
    Call("lseek", 8, file=0, is_default=False),
    Call("mmap", 9, file=4, offset=5, size=1, flags=3, kind=_MAPPING, is_default=False),
    Call("munmap", 11, size=1, is_default=False),
    Call("ioctl", 16, file=0, is_default=False),
    Call("access", 21, is_default=False),
    Call("fcntl", 72, file=0, is_default=False),
    Call("flock", 73, file=0, is_default=False),
    Call("getdents", 78, file=0, size=2, is_default=False),
    Call("mkdir", 83, is_default=False),
    Call("mkdirat", 258, is_default=False),
    Call("rmdir", 84, is_default=False),
    Call("link", 86, is_default=False),
    Call("linkat", 265, is_default=False),
    Call("symlink", 88, is_default=False),
    Call("symlinkat", 266, is_default=False),
    Call("tee", 276, file=0, size=2, is_default=False),
    Call("vmsplice", 278, file=0, kind=_VECTOR, is_default=False),
)
# The same calls of 32-bit programs, some of which have two; source: syscall_32.tbl.
_NUMBERS_OF_32_BIT = {
    "read": (3,),
    "write": (4,),
    "pread64": (180,),
    "pwrite64": (181,),
    "readv": (145,),
    "writev": (146,),
    "preadv": (333,),
    "pwritev": (334,),
    "preadv2": (378,),
    "pwritev2": (379,),
    "fsync": (118,),
    "fdatasync": (148,),
    "sync_file_range": (314,),
    "sync": (36,),
    "syncfs": (344,),
    "msync": (144,),
    "open": (5,),
    "creat": (8,),
    "openat": (295,),
    "openat2": (437,),
    "close": (6,),
    "truncate": (92, 193),
    "ftruncate": (93, 194),
    "fallocate": (324,),
    "copy_file_range": (377,),
    "sendfile": (187, 239),
    "splice": (313,),
    "fadvise64": (250, 272),
    "readahead": (225,),
    "getdents64": (220,),
    "unlink": (10,),
    "unlinkat": (301,),
    "rename": (38,),
    "renameat": (302,),
    "renameat2": (353,),
    "io_submit": (248,),
    "io_getevents": (247,),
    "io_pgetevents": (385, 416),
    "io_uring_enter": (426,),
    "stat": (106, 195),
    "fstat": (108, 197),
    "lstat": (107, 196),
    "newfstatat": (300,),
    "statx": (383,),
    "statfs": (99, 268),
    "fstatfs": (100, 269),
    "lseek": (19, 140),
    "mmap": (90, 192),
    "munmap": (91,),
    "ioctl": (54,),
    "access": (33,),
    "fcntl": (55, 221),
    "flock": (143,),
    "getdents": (141,),
    "mkdir": (39,),
    "mkdirat": (296,),
    "rmdir": (40,),
    "link": (9,),
    "linkat": (303,),
    "symlink": (83,),
    "symlinkat": (304,),
    "tee": (315,),
    "vmsplice": (316,),
}
CALL_OPS = {FIRST_CALL_OP + place: call.name for place, call in enumerate(CALLS)}
DEFAULT_CALLS = tuple(call.name for call in CALLS if call.is_default)


def resolve_calls(names: Sequence[str]) -> tuple[str, ...]:
    """Those of these names, given as `pread64,pwrite64` or one by one, in the order of CALLS.

    Raises IorecError for a name that is none, with those that are like it.
    """
    known = [call.name for call in CALLS]
    wanted = {part for name in names for part in name.split(",")}
    for name in sorted(wanted - set(known)):
        like = difflib.get_close_matches(name, known)
        hint = f"did you mean {' or '.join(like)}?" if like else f"there are: {', '.join(known)}"
        raise IorecError(f"no system call {name!r} can be recorded", hint, exit_code=2)
    return tuple(name for name in known if name in wanted)


def calls_table(names: Sequence[str]) -> bytes:
    """struct calls of bpf/syscall.c, which has these recorded."""
    table = bytearray(_MOST_CALLS * _CALL.size)
    for place, call in enumerate(CALLS):
        if call.name in names:
            places = call.file, call.offset, call.size, call.flags, call.kind
            _CALL.pack_into(table, call.number * _CALL.size, FIRST_CALL_OP + place, *places)
    for name in names:
        for number in _NUMBERS_OF_32_BIT[name]:
            table[number * _CALL.size + _IS_COMPAT] = True
    return bytes(table)
