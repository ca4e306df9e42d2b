# SPDX-License-Identifier: GPL-2.0-only
"""The open loop in Python, for machines without a compiler: pace.c tells how it works.

No object is made for an I/O: a batch is a store of the tail and a system call. What completions
say is looked at in bulk, when there is time or the ring is half full.
"""

import ctypes
import fcntl
import struct
import time
from bisect import bisect_right

import numpy as np

from iorec.replay.layout import (
    FAILURES_IN_A_ROW,
    FILLED,
    FREED,
    IS_ALL,
    LONGEST_WAIT_NS,
    MOST_ERRNO,
    SLOT_BYTES,
    SPIN_MARGIN_NS,
    Ending,
    Pace,
    bucket_of,
)
from iorec.replay.uring import EXT_ARG, GETEVENTS, SQ_TASKRUN, SYS_ENTER

_EAGAIN = (4, 11, 16)  # EINTR, EAGAIN, EBUSY
_GONE = (19, 6)  # ENODEV, ENXIO
_SQE_FLAGS, _IO_LINK = 1, 4
_ARG_BYTES = 24
_OP_URING_CMD = 46
_SQE = struct.Struct("<BBHiQQIIQHHiQQ")
_BLKDISCARD = 0x1277  # linux/fs.h


class Enter:
    """io_uring_enter(2) of one ring, which keeps the interpreter's lock: it is short."""

    def __init__(self, fd: int) -> None:
        self._call = ctypes.PyDLL(None, use_errno=True).syscall
        self._call.restype = ctypes.c_long
        self._call.argtypes = [
            ctypes.c_long,
            ctypes.c_uint,
            ctypes.c_uint,
            ctypes.c_uint,
            ctypes.c_uint,
            ctypes.c_void_p,
            ctypes.c_size_t,
        ]
        self._fd = fd
        self._time = (ctypes.c_int64 * 2)()
        self._arg = (ctypes.c_uint64 * 3)(0, 0, ctypes.addressof(self._time))
        self._arg_address = ctypes.addressof(self._arg)

    def submit(self, count: int) -> int:
        """Hands over what is beyond the tail; the errno, negative, if that fails."""
        done = self._call(SYS_ENTER, self._fd, count, 0, GETEVENTS, None, 0)
        return int(done) if done >= 0 else -ctypes.get_errno()

    def wait(self, longest_ns: int) -> None:
        """Waits for a completion."""
        self._time[1] = max(min(longest_ns, LONGEST_WAIT_NS), 0)
        self._call(SYS_ENTER, self._fd, 0, 1, GETEVENTS | EXT_ARG, self._arg_address, _ARG_BYTES)

    def run_completions(self) -> None:
        """Has the kernel put what is ready into the ring."""
        self._call(SYS_ENTER, self._fd, 0, 0, GETEVENTS, None, 0)


def view(address: int, kind: str, count: int) -> memoryview:
    """Memory as numbers."""
    size = {"q": 8, "Q": 8, "I": 4, "B": 1}[kind] * count
    raw = (ctypes.c_char * size).from_address(address)
    return memoryview(raw).cast("B").cast(kind)  # type: ignore[call-overload, no-any-return]


class Completions:
    """Counts what completions say, from the mapped ring."""

    def __init__(self, pace: Pace) -> None:
        self.pace = pace
        count = pace.cq_mask + 1
        raw = (ctypes.c_char * (16 * count)).from_address(pace.cqes)
        dtype = np.dtype([("user_data", "<u8"), ("res", "<i4"), ("flags", "<u4")])
        self.entries = np.frombuffer(raw, dtype)
        self.errors = view(pace.errors, "q", MOST_ERRNO + 1)

    def count(self, first: int, number: int) -> None:
        """Looks at `number` entries from the place `first` on; they do not cross the end."""
        entries = self.entries[first : first + number]
        res = entries["res"].astype(np.int64)
        expected = (entries["user_data"] & np.uint64(0xFFFFFFFF)).astype(np.int64)
        is_failed = res < 0
        if not is_failed.any():
            self.pace.in_a_row = 0
        elif is_failed.all():
            self.pace.in_a_row += number
        else:
            self.pace.in_a_row = number - 1 - int(np.flatnonzero(~is_failed)[-1])
        self.pace.short_count += int((~is_failed & (res != expected)).sum())
        for errno in (-res[is_failed]).tolist():
            self.pace.failed += 1
            self.errors[errno if errno <= MOST_ERRNO else 0] += 1
            if errno in _GONE:
                self.pace.in_a_row = FAILURES_IN_A_ROW


class OpenLoop:
    """Runs a Pace."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._enter = Enter(pace.fd)
        self._completions = Completions(pace)
        self._counted = 0  # completions
        self._tail = view(pace.sq_tail, "I", 1)
        self._flags = view(pace.sq_flags, "I", 1)
        self._cq_head, self._cq_tail = view(pace.cq_head, "I", 1), view(pace.cq_tail, "I", 1)
        self._board = view(pace.board, "q", FREED + 1)
        self._due = view(pace.due, "q", pace.mask + 1)
        self._slots = view(pace.slots, "B", SLOT_BYTES * (pace.mask + 1))
        self._lateness = view(pace.lateness, "q", bucket_of(1 << 62) + 1)

    def run(self, until_ns: int) -> int:
        """As pace_run() of pace.c."""
        pace, clock = self._pace, time.monotonic_ns
        while True:
            self._reap()
            now = clock()
            if pace.is_ending:
                state = self._drain(now)
                if state != Ending.GOES_ON or now >= until_ns:
                    return state
                continue
            if self._has_lost_device():
                self._begin_end(Ending.VANISHED, now)
                continue
            is_all = self._board[IS_ALL]
            filled = self._board[FILLED]
            if pace.issued == filled:
                if is_all:
                    self._begin_end(Ending.ENDED, now)
                    continue
                if now >= until_ns:
                    return Ending.GOES_ON
                self._enter.wait(50_000)
                pace.starved_ns += clock() - now
                continue
            due = now if pace.is_fast else pace.start_ns + self._due[pace.issued & pace.mask]
            if now < due:
                if now >= until_ns and due - now > pace.spin_ns:
                    return Ending.GOES_ON
                if due - now > pace.spin_ns + SPIN_MARGIN_NS:
                    self._count_completions()
                    self._enter.wait(due - clock() - pace.spin_ns)
                elif self._flags[0] & SQ_TASKRUN:
                    self._enter.run_completions()
                continue
            if not pace.is_fast and now - due > pace.give_up_ns:
                self._begin_end(Ending.TOO_LATE, now)
            elif not self._issue(filled, now):
                self._begin_end(Ending.REFUSED, now)
            if now > until_ns + 4 * LONGEST_WAIT_NS:
                return Ending.GOES_ON

    def _has_lost_device(self) -> bool:
        return bool(self._pace.in_a_row >= FAILURES_IN_A_ROW)

    def _reap(self) -> None:
        """Learns how many have ended; what they say is looked at later."""
        pace = self._pace
        pace.ended += (self._cq_tail[0] - pace.ended) & 0xFFFFFFFF
        if pace.ended - self._counted > (pace.cq_mask + 1) // 2:
            self._count_completions()

    def _count_completions(self) -> None:
        pace = self._pace
        while self._counted < pace.ended:
            first = self._counted & pace.cq_mask
            number = min(pace.ended - self._counted, pace.cq_mask + 1 - first)
            self._completions.count(first, number)
            self._counted += number
            self._cq_head[0] = self._counted & 0xFFFFFFFF

    def _drain(self, now: int) -> int:
        if self._pace.issued == self._pace.ended:
            self._count_completions()
            return int(self._pace.ending)
        if now > self._pace.drain_until_ns:
            self._count_completions()
            return Ending.HUNG
        self._enter.wait(LONGEST_WAIT_NS)
        return Ending.GOES_ON

    def _begin_end(self, ending: Ending, now: int) -> None:
        self._pace.is_ending, self._pace.ending = 1, ending
        self._pace.drain_until_ns = now + self._pace.give_up_ns

    def _issue(self, filled: int, now: int) -> bool:
        pace = self._pace
        issued = pace.issued
        count = self._due_now(filled, pace.depth - (issued - pace.ended), now)
        if not count:
            self._count_completions()
            self._enter.wait(LONGEST_WAIT_NS)
            return True
        at = issued & pace.mask
        for slot in range(at, at + count):
            late = 0 if pace.is_fast else now - pace.start_ns - self._due[slot & pace.mask]
            pace.late_ns = late
            self._discard_now(slot & pace.mask)
            if not self._is_linked(slot & pace.mask):
                self._lateness[bucket_of(late)] += 1
        if not self._submit(count):
            return False
        self._board[FREED] = pace.issued
        return True

    def _due_now(self, filled: int, room: int, now: int) -> int:
        """How many of the next rows are due and may be issued together; the first one is due."""
        pace = self._pace
        at = pace.issued & pace.mask
        if self._is_linked(at):
            if not self._has_room(2) or filled - pace.issued < 2:
                return 0
            pace.added += 1
            return 2
        most = int(min(pace.batch, room, filled - pace.issued, pace.mask + 1 - at))
        if most > 0 and not pace.is_fast:
            most = bisect_right(self._due, now - pace.start_ns, at, at + most) - at
        for count in range(1, most):
            if self._is_linked(at + count):
                return count
        return max(most, 0)

    def _has_room(self, count: int) -> bool:
        in_flight = self._pace.issued - self._pace.ended
        return bool(not in_flight or in_flight + count <= self._pace.depth)

    def _discard_now(self, slot: int) -> None:
        """A discard that the kernel does while one waits; the entry becomes one without effect."""
        entry = self._slots[slot * SLOT_BYTES : (slot + 1) * SLOT_BYTES]
        if not self._pace.has_sync_discard or entry[0] != _OP_URING_CMD:
            return
        sqe = _SQE.unpack(entry)
        try:
            fd = view(self._pace.fds, "I", sqe[3] + 1)[sqe[3]]
            fcntl.ioctl(fd, _BLKDISCARD, struct.pack("<QQ", sqe[5], sqe[12]))
        except OSError as error:
            self._pace.failed += 1
            self._completions.errors[error.errno or 0] += 1
        entry[:] = _SQE.pack(*(sqe[8] if place == 8 else 0 for place in range(14)))

    def _is_linked(self, slot: int) -> bool:
        return bool(self._slots[slot * SLOT_BYTES + _SQE_FLAGS] & _IO_LINK)

    def _submit(self, count: int) -> bool:
        pace = self._pace
        pace.issued += count
        pace.most_in_flight = max(pace.most_in_flight, pace.issued - pace.ended)
        self._tail[0] = (self._tail[0] + count) & 0xFFFFFFFF
        while count:
            done = self._enter.submit(count)
            if done >= 0:
                count -= done
            elif -done in _EAGAIN:
                self._reap()
                self._count_completions()
            else:
                pace.submit_errno = -done
                pace.issued -= count
                return False
        return True
