# SPDX-License-Identifier: GPL-2.0-only
"""The closed loop in Python, for machines without a compiler: pace.c tells how it works."""

import heapq
import time

from iorec.replay.layout import (
    FILLED,
    FREED,
    IS_ALL,
    LONGEST_WAIT_NS,
    SLOT_BYTES,
    SPIN_MARGIN_NS,
    WITH_PREVIOUS,
    Ending,
    Pace,
    bucket_of,
)
from iorec.replay.pace import OpenLoop, view


class ClosedLoop(OpenLoop):
    """Runs a Pace whose rows wait for one another."""

    def __init__(self, pace: Pace) -> None:
        super().__init__(pace)
        count = pace.mask + 1
        self._think = view(pace.think, "q", count)
        self._waits_for = view(pace.waits_for, "q", count)
        self._ring_slots = view(pace.ring_slots, "B", SLOT_BYTES * count)
        self._user_data = view(pace.cqes, "Q", 2 * (pace.cq_mask + 1))
        self._ended_ns = view(pace.ended_ns, "q", pace.ended_mask + 1)
        self._heap: list[tuple[int, int]] = []
        self._children: dict[int, list[int]] = {}  # by the row that they wait for
        self._ended: set[int] = set()  # rows from the first that has not ended on
        self._seen = 0

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
            is_all, filled = self._board[IS_ALL], self._board[FILLED]
            self._admit(filled, now)
            if not self._heap:
                if is_all and pace.issued == filled:
                    self._begin_end(Ending.ENDED, now)
                    continue
                if now >= until_ns:
                    return Ending.GOES_ON
                self._enter.wait(50_000 if pace.issued == pace.ended else 1_000_000)
                continue
            ready = self._heap[0][0]
            if now < ready:
                if now >= until_ns and ready - now > pace.spin_ns:
                    return Ending.GOES_ON
                if ready - now > pace.spin_ns + SPIN_MARGIN_NS:
                    self._enter.wait(ready - now - pace.spin_ns)
                else:
                    self._enter.run_completions()
                continue
            if now - ready > pace.give_up_ns:
                self._begin_end(Ending.TOO_LATE, now)
            elif not self._issue_next(now):
                self._begin_end(Ending.REFUSED, now)
            if now > until_ns + 4 * LONGEST_WAIT_NS:
                return Ending.GOES_ON

    def _reap(self) -> None:
        """Gives what waited for each I/O that has ended its moment."""
        super()._reap()
        pace = self._pace
        if self._seen == pace.ended:
            return
        now = time.monotonic_ns()
        for number in range(self._seen, pace.ended):
            slot = self._user_data[2 * (number & pace.cq_mask)] >> 48
            freed = self._board[FREED]
            self._end_row(freed + ((slot - freed) & pace.mask), now)
        self._seen = pace.ended
        self._count_completions()

    def _end_row(self, row: int, now: int) -> None:
        self._ended_ns[row & self._pace.ended_mask] = now
        for child in self._children.pop(row, ()):
            heapq.heappush(self._heap, (now + self._think[child & self._pace.mask], child))
        self._ended.add(row)
        freed = self._board[FREED]
        while freed in self._ended:
            self._ended.remove(freed)
            freed += 1
        self._board[FREED] = freed

    def _admit(self, filled: int, now: int) -> None:
        pace = self._pace
        for row in range(pace.admitted, filled):
            slot = row & pace.mask
            other = self._waits_for[slot]
            self._ended_ns[row & pace.ended_mask] = 0
            if other == WITH_PREVIOUS:
                continue
            if other < 0:
                heapq.heappush(self._heap, (pace.start_ns + self._due[slot], row))
            elif other <= row - pace.ended_mask:
                heapq.heappush(self._heap, (now, row))
            elif ended := self._ended_ns[other & pace.ended_mask]:
                heapq.heappush(self._heap, (ended + self._think[slot], row))
            else:
                self._children.setdefault(other, []).append(row)
        pace.admitted = max(pace.admitted, filled)

    def _issue_next(self, now: int) -> bool:
        pace = self._pace
        ready, row = self._heap[0]
        count = 2 if self._is_linked(row & pace.mask) else 1
        if not self._has_room(count):
            self._enter.wait(LONGEST_WAIT_NS)
            return True
        heapq.heappop(self._heap)
        pace.late_ns = now - ready
        pace.added += count - 1
        self._lateness[bucket_of(now - ready)] += 1
        for entry in range(count):
            self._discard_now((row + entry) & pace.mask)
            source = ((row + entry) & pace.mask) * SLOT_BYTES
            place = ((self._tail[0] + entry) & pace.mask) * SLOT_BYTES
            self._ring_slots[place : place + SLOT_BYTES] = self._slots[source : source + SLOT_BYTES]
        return self._submit(count)
