# SPDX-License-Identifier: GPL-2.0-only
"""Relates the kernel's monotonic time to wall-clock time."""

import time

from analyze.metadata import ClockReading

# Slewing by NTP, at most 500 ppm, moves the clocks 0.5 ms apart in a second.
_STEP_NS = 10_000_000


def read_clocks() -> ClockReading:
    """The pair read closest together of a few tries."""
    tries = []
    for _ in range(5):
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        realtime = time.clock_gettime_ns(time.CLOCK_REALTIME)
        after = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        tries.append((after - before, ClockReading((before + after) // 2, realtime)))
    return min(tries, key=lambda pair: pair[0])[1]


def step_between(earlier: ClockReading, later: ClockReading) -> int | None:
    """By how many ns the wall clock was set between two readings; None if it was not."""
    step = later.offset_ns - earlier.offset_ns
    return step if abs(step) > _STEP_NS else None
