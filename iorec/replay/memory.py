# SPDX-License-Identifier: GPL-2.0-only
"""Reserves the memory that a replay reads into and writes from, and fills the latter."""

import contextlib
import mmap
import os
from dataclasses import dataclass

from analyze.replay_actions import LARGEST_IO_BYTES
from iorec.replay.uring import address_of

_HUGE = 2 << 20
_WRITTEN_BYTES = 16 << 20  # so that a device that finds repeated blocks does so late
_BLOCK = 4096
_NORESERVE = 0x4000  # mmap has its name since Python 3.13


@dataclass(frozen=True)
class Memory:
    """Where the data of I/Os are: reads end up in one part, writes come from the other one.

    Sizes are known when there is a plan; a part that is not used has none.
    """

    read_address: int
    read_bytes: int
    write_address: int
    write_bytes: int


class Reserve:
    """Address space for both parts, which takes memory only when it is touched.

    Of huge pages, as a request of more than some pages would be split otherwise.
    """

    def __init__(self) -> None:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NORESERVE
        self._map = mmap.mmap(-1, 2 * (LARGEST_IO_BYTES + _WRITTEN_BYTES) + _HUGE, flags)
        with contextlib.suppress(OSError):  # a kernel without them
            self._map.madvise(mmap.MADV_HUGEPAGE)
        self._map.madvise(mmap.MADV_DONTFORK)
        start = address_of(self._map)
        self._base = -start % _HUGE
        self.address = start + self._base

    def memory(self, largest_read: int, largest_write: int) -> Memory:
        """The parts for I/Os of these sizes, 0 if there are none."""
        read_bytes = -(-largest_read // _HUGE) * _HUGE
        write_bytes = max(_WRITTEN_BYTES, -(-2 * largest_write // _HUGE) * _HUGE)
        write_bytes *= largest_write > 0
        after = self.address + LARGEST_IO_BYTES
        return Memory(self.address, read_bytes, after, write_bytes)

    def fill(self, memory: Memory, data: str) -> None:
        """Puts into the part for writes what is to be written; touches the other one."""
        for offset in range(0, memory.read_bytes, _HUGE):
            self._map[self._base + offset] = 0
        zeros = {"zero": _BLOCK, "random": 0}.get(data, 0)
        if data.startswith("compress:"):
            zeros = _BLOCK * int(data.partition(":")[2]) // 100
        start = self._base + memory.write_address - self.address
        for offset in range(start, start + memory.write_bytes, _BLOCK):
            self._map[offset : offset + _BLOCK] = os.urandom(_BLOCK - zeros) + bytes(zeros)
