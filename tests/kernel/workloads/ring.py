# SPDX-License-Identifier: GPL-2.0-only
"""Submits operations of io_uring without a library: ring.py SCENARIO FOLDER."""

import ctypes
import mmap
import os
import socket
import struct
import sys
from pathlib import Path
from typing import NamedTuple

NOP, OPENAT, READ, WRITE, SEND_ZC = 0, 18, 22, 23, 47
FIXED_FILE, LINK, SKIP_SUCCESS = 1, 4, 64  # IOSQE_
AT_FDCWD = -100
_SETUP, _ENTER, _REGISTER = 425, 426, 427
_SQES, _CQ_RING = 0x10000000, 0x8000000
_REGISTER_FILES = 2
_ENTRIES = 64
LIBC = ctypes.CDLL(None, use_errno=True)


class Entry(NamedTuple):
    """An operation to submit; struct io_uring_sqe."""

    opcode: int
    fd: int = -1
    address: int = 0
    length: int = 0
    offset: int = 0
    flags: int = 0
    slot: int = 0  # among the ring's files, from 1: where to put one that is opened


class Ring:
    """A ring with 64 places; what is submitted is awaited."""

    def __init__(self) -> None:
        parameters = ctypes.create_string_buffer(120)
        self._fd = LIBC.syscall(_SETUP, _ENTRIES, parameters)
        assert self._fd >= 0, os.strerror(ctypes.get_errno())
        self._sq = struct.unpack_from("10I", parameters, 40)
        self._cq = struct.unpack_from("10I", parameters, 80)
        self._rings = mmap.mmap(self._fd, self._sq[6] + 4 * _ENTRIES)
        self._sqes = mmap.mmap(self._fd, 64 * _ENTRIES, offset=_SQES)
        cqes_end = self._cq[5] + 16 * self._number(self._cq[3])
        self._cqes = mmap.mmap(self._fd, cqes_end, offset=_CQ_RING)

    def submit(self, *entries: Entry, completions: int | None = None) -> list[tuple[int, int]]:
        """The result and the flags of each completion, in their order."""
        mask, tail = self._number(self._sq[2]), self._number(self._sq[1])
        for entry in entries:
            place = tail & mask
            packed = struct.pack(
                *("=BBHiQQIIQHHi16x", entry.opcode, entry.flags, 0, entry.fd, entry.offset),
                *(entry.address, entry.length, 0, tail, 0, 0, entry.slot),
            )
            self._sqes[64 * place : 64 * place + 64] = packed
            struct.pack_into("I", self._rings, self._sq[6] + 4 * place, place)
            tail += 1
        struct.pack_into("I", self._rings, self._sq[1], tail)
        wanted = len(entries) if completions is None else completions
        assert LIBC.syscall(_ENTER, self._fd, len(entries), wanted, 1, None, 0) == len(entries)
        return self.await_completions(wanted)

    def await_completions(self, count: int) -> list[tuple[int, int]]:
        """The next ones, which have been posted."""
        return [self._completion() for _ in range(count)]

    def register_files(self, *fds: int) -> None:
        numbers = (ctypes.c_int * len(fds))(*fds)
        assert LIBC.syscall(_REGISTER, self._fd, _REGISTER_FILES, numbers, len(fds)) == 0

    def _completion(self) -> tuple[int, int]:
        head, mask = self._number(self._cq[0]), self._number(self._cq[2])
        place = self._cq[5] + 16 * (head & mask)
        _, result, flags = struct.unpack_from("=QiI", self._cqes, place)
        struct.pack_into("I", self._rings, self._cq[0], head + 1)
        return result, flags

    def _number(self, offset: int) -> int:
        return int(struct.unpack_from("I", self._rings, offset)[0])


def operations_without_a_file(ring: Ring, data: int) -> None:
    """After an operation that returned the number of a file, so that the number is left over."""
    path = ctypes.create_string_buffer(b"/dev/null")
    for _ in range(5):
        ((returned, _),) = ring.submit(Entry(READ, data, BUFFER, data))
        assert returned == data
        ring.submit(Entry(NOP))
        ring.submit(Entry(OPENAT, AT_FDCWD, ctypes.addressof(path)))


def file_opened_by_the_one_before(ring: Ring, data: int) -> None:
    """The second of two, for a place of the ring which another file has until then."""
    ring.register_files(-1, data)
    path = ctypes.create_string_buffer(b"/dev/null")
    opened = Entry(OPENAT, AT_FDCWD, ctypes.addressof(path), flags=LINK, slot=2)
    read = Entry(READ, 1, BUFFER, 11, flags=FIXED_FILE)
    results = [result for result, _ in ring.submit(read, opened, read)]
    assert sorted(results) == [0, 0, 11]


def zero_copy(ring: Ring, data: int) -> None:
    """Sends which complete twice: when they are done, and when their memory is free."""
    listening = socket.create_server(("127.0.0.1", 0))
    sending = socket.create_connection(listening.getsockname())
    for length in range(100, 107):
        completions = ring.submit(Entry(SEND_ZC, sending.fileno(), BUFFER, length), completions=2)
        assert [result for result, _ in completions] == [length, 0]


def append(ring: Ring, data: int) -> None:
    """A write whose place the file system chooses."""
    path = Path(f"/proc/self/fd/{data}").readlink()
    appending = os.open(path, os.O_WRONLY | os.O_APPEND)
    assert ring.submit(Entry(WRITE, appending, BUFFER, 13, offset=5)) == [(13, 0)]
    assert ring.submit(Entry(WRITE, data, BUFFER, 14, offset=5)) == [(14, 0)]


def overflow(ring: Ring, data: int) -> None:
    """More completions than there is room for, and then failures of which else nothing is told."""
    for _ in range(3):
        ring.submit(*[Entry(NOP)] * _ENTRIES, completions=0)
    ring.await_completions(2 * _ENTRIES)
    ring.submit(completions=_ENTRIES)
    for _ in range(_ENTRIES):
        assert ring.submit(Entry(READ, 99, BUFFER, 1, flags=SKIP_SUCCESS)) == [(-9, 0)]


def main() -> None:
    scenario, folder = sys.argv[1:]
    Path(folder, "pid").write_text(str(os.getpid()))
    data = os.open(f"{folder}/data", os.O_CREAT | os.O_RDWR)
    os.pwrite(data, bytes(1000), 0)
    globals()[scenario](Ring(), data)


_MEMORY = ctypes.create_string_buffer(4096)
BUFFER = ctypes.addressof(_MEMORY)

if __name__ == "__main__":
    main()
