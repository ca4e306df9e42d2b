# SPDX-License-Identifier: GPL-2.0-only
"""Relates the kernel's monotonic time to wall-clock time."""

import time
from dataclasses import dataclass
from datetime import UTC, datetime

# Slewing by NTP, at most 500 ppm, moves the clocks 0.5 ms apart in a second.
_STEP_NS = 10_000_000


@dataclass(frozen=True)
class ClockPair:
    """Both clocks read at one moment."""

    monotonic_ns: int
    realtime_ns: int

    @property
    def offset_ns(self) -> int:
        """What monotonic time lacks to wall-clock time."""
        return self.realtime_ns - self.monotonic_ns


def read_clocks() -> ClockPair:
    """The pair read closest together of a few tries."""
    tries = []
    for _ in range(5):
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        realtime = time.clock_gettime_ns(time.CLOCK_REALTIME)
        after = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        tries.append((after - before, ClockPair((before + after) // 2, realtime)))
    return min(tries, key=lambda pair: pair[0])[1]


def step_between(earlier: ClockPair, later: ClockPair) -> int | None:
    """By how many ns the wall clock was set between two readings; None if it was not."""
    step = later.offset_ns - earlier.offset_ns
    return step if abs(step) > _STEP_NS else None


def format_time(realtime_ns: int) -> str:
    """RFC 3339 in UTC with nine decimals."""
    seconds, nanoseconds = divmod(realtime_ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{nanoseconds:09}Z"
