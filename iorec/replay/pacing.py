# SPDX-License-Identifier: GPL-2.0-only
"""The memory of the loop itself, in whichever language, and what it has counted."""

import ctypes
import errno
import mmap
from collections.abc import Sequence

from analyze.replayed import LatenessCounts
from iorec.replay.board import Board
from iorec.replay.engine import Engine
from iorec.replay.layout import (
    BUCKETS,
    MOST_ERRNO,
    REMEMBERED,
    SLOTS,
    Pace,
    bucket_of,
    most_in_bucket,
)
from iorec.replay.uring import address_of

SPIN_NS = 60_000  # by which a sleep may be late; then the loop looks at the clock alone
BATCH = 2  # more at once would make the kernel plug, and merge neighbours
_LATE_NS = 100_000


class Pacing:
    """The struct that the loop runs on, and the memory that it points to."""

    def __init__(self, engine: Engine, board: Board, *, is_closed: bool, is_fast: bool) -> None:
        self.pace = Pace()
        self.lateness = (ctypes.c_int64 * BUCKETS)()
        self.errors = (ctypes.c_int64 * (MOST_ERRNO + 1))()
        self._kept: list[object] = []
        pace = self.pace
        engine.fill(pace)
        pace.board, pace.slots = address_of(board.memory), address_of(board.slots)
        pace.due, pace.think = address_of(board.due), address_of(board.think)
        pace.waits_for = address_of(board.waits_for)
        pace.mask, pace.ended_mask = SLOTS - 1, REMEMBERED - 1
        pace.is_closed, pace.is_fast = is_closed, is_fast
        pace.spin_ns, pace.batch = SPIN_NS, BATCH
        pace.lateness = ctypes.addressof(self.lateness)
        pace.errors = ctypes.addressof(self.errors)
        if is_closed:
            pace.heap_ns, pace.heap_slot = self._memory(8 * SLOTS), self._memory(4 * SLOTS)
            pace.first_child, pace.next_child = self._memory(4 * SLOTS), self._memory(4 * SLOTS)
            pace.has_ended, pace.ended_ns = self._memory(SLOTS), self._memory(8 * REMEMBERED)

    def discard_by_ioctl(self, fds: Sequence[int]) -> None:
        """Has the loop discard while it waits, on one of these."""
        numbers = (ctypes.c_int32 * len(fds))(*fds)
        self._kept.append(numbers)
        self.pace.has_sync_discard, self.pace.fds = 1, ctypes.addressof(numbers)

    def _memory(self, size: int) -> int:
        memory = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE)
        self._kept.append(memory)
        return address_of(memory)

    def counted_lateness(self) -> LatenessCounts:
        """Percentiles of the histogram."""
        counts = list(self.lateness)
        total = sum(counts)
        return LatenessCounts(
            p50_ns=_percentile(counts, total, 500),
            p99_ns=_percentile(counts, total, 990),
            p999_ns=_percentile(counts, total, 999),
            max_ns=_percentile(counts, total, 1000),
            over_100us=sum(counts[bucket_of(_LATE_NS) + 1 :]),
        )

    def counted_errors(self) -> dict[str, int]:
        """Failed I/Os by the name of the errno."""
        return {
            errno.errorcode.get(number, f"error {number}"): count
            for number, count in enumerate(self.errors)
            if count
        }


def _percentile(counts: list[int], total: int, permille: int) -> int:
    passed = 0
    for bucket, count in enumerate(counts):
        passed += count
        if count and passed * 1000 >= total * permille:
            return most_in_bucket(bucket)
    return 0
