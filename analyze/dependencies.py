# SPDX-License-Identifier: GPL-2.0-only
"""Infers which threads wait for their I/Os before they submit the next one, and for which.

Arrivals that do not care about completions find as many I/Os in flight as a random moment does
(PASTA: Poisson arrivals see time averages; Wolff, Operations Research 30, 1982); those of a thread
that waits find fewer. One that keeps to a timer also avoids itself: there the gap after a
completion gets shorter by what the I/O took longer, and the thread counts as one that does not
wait. What a capture of a block device cannot show is waiting across threads, and a timer whose I/Os
all take the same time.
"""

import heapq
from collections import defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import sqrt

import numpy as np
from duckdb import DuckDBPyConnection
from numpy.typing import NDArray

_FEWEST_IOS = 20  # of fewer nothing can be said: such a thread keeps its times
# Of Kolmogorov and Smirnov's statistic times the root of n: 4 % of threads that do not wait.
_LEAST_SIGNIFICANCE = 1.4
_LEAST_FOLLOWED = 0.3
# A timer has a slope of -1, a thread that waits one of 0.
_MOST_SLOPE_OF_TIMER, _LEAST_R2_OF_TIMER = -0.5, 0.25

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Thread:
    """How a thread submits: `followed` is the share of depth that its arrivals avoid."""

    tid: int
    ios: int
    followed: float
    significance: float
    slope: float | None  # of the gap after a completion, by how long that I/O took
    slope_r2: float | None

    @property
    def is_timed(self) -> bool:
        """Whether it keeps to a timer."""
        has_slope = self.slope is not None and self.slope_r2 is not None
        return (
            has_slope
            and (self.slope or 0) < _MOST_SLOPE_OF_TIMER
            and (self.slope_r2 or 0) > _LEAST_R2_OF_TIMER
        )

    @property
    def waits(self) -> bool:
        """Whether its I/Os wait for earlier ones."""
        return (
            self.ios >= _FEWEST_IOS
            and self.significance > _LEAST_SIGNIFICANCE
            and self.followed >= _LEAST_FOLLOWED
            and not self.is_timed
        )


def infer_threads(connection: DuckDBPyConnection, view: str) -> list[Thread]:
    """Every thread of a view with `time_ns`, `tid` (-1 is unknown) and `latency_ns`.

    The busiest first. What it takes of memory does not grow with the rows.
    """
    counts: dict[int, dict[int, tuple[int, int]]] = defaultdict(dict)
    for tid, depth, arrivals, time_ns in connection.execute(_DEPTHS.format(view=view)).fetchall():
        counts[tid][depth] = (arrivals, time_ns)
    slopes = {
        tid: (slope, r2)
        for tid, slope, r2 in connection.execute(_SLOPES.format(view=view)).fetchall()
    }
    threads = [
        _thread(tid, by_depth, *slopes.get(tid, (None, None))) for tid, by_depth in counts.items()
    ]
    return sorted(threads, key=lambda thread: (-thread.ios, thread.tid))


_EVENTS = """
    SELECT tid, time_ns AS t, 1 AS step FROM {view} WHERE tid >= 0
    UNION ALL
    SELECT tid, time_ns + latency_ns, -1 FROM {view} WHERE tid >= 0 AND latency_ns IS NOT NULL
"""

# What ends at a moment has ended when something begins at it. Time counts up to the last arrival.
_DEPTHS = f"""
    WITH depths AS (
        SELECT tid, step, sum(step) OVER steps AS depth, lead(t) OVER steps - t AS lasts,
            t < max(t) FILTER (step = 1) OVER (PARTITION BY tid) AS is_inside
        FROM ({_EVENTS}) WINDOW steps AS (PARTITION BY tid ORDER BY t, step)
    ),
    seen AS (
        SELECT tid, depth - 1 AS depth, 1 AS arrivals, 0 AS time_ns FROM depths WHERE step = 1
        UNION ALL
        SELECT tid, depth, 0, lasts FROM depths WHERE is_inside AND lasts > 0
    )
    SELECT tid, depth::BIGINT, sum(arrivals)::BIGINT, sum(time_ns)::BIGINT
    FROM seen GROUP BY tid, depth ORDER BY tid, depth
"""

_SLOPES = """
    WITH ends AS (
        SELECT tid, time_ns + latency_ns AS end_ns, latency_ns FROM {view}
        WHERE tid >= 0 AND latency_ns IS NOT NULL
    ),
    gaps AS (
        SELECT arrival.tid, arrival.time_ns - ends.end_ns AS gap_ns, ends.latency_ns
        FROM {view} AS arrival
        ASOF JOIN ends ON arrival.tid = ends.tid AND arrival.time_ns >= ends.end_ns
    )
    SELECT tid, regr_slope(gap_ns, latency_ns), regr_r2(gap_ns, latency_ns) FROM gaps GROUP BY tid
"""


def _thread(
    tid: int, by_depth: dict[int, tuple[int, int]], slope: float | None, r2: float | None
) -> Thread:
    ios = sum(arrivals for arrivals, _ in by_depth.values())
    total_ns = sum(time_ns for _, time_ns in by_depth.values())
    best, followed = 0.0, 0.0
    seen, passed_ns = 0, 0
    for depth in sorted(by_depth):
        seen += by_depth[depth][0]
        passed_ns += by_depth[depth][1]
        share, share_of_time = seen / max(ios, 1), passed_ns / max(total_ns, 1)
        if share - share_of_time > best:
            best = share - share_of_time
            followed = 1 - (1 - share) / max(1 - share_of_time, 1e-9)
    return Thread(tid, ios, followed, best * sqrt(ios), slope, r2)


@dataclass(frozen=True)
class Followed:
    """For each I/O the number of the one that it waits for, or -1, and the gap in between."""

    number: Ints
    gap_ns: Ints


class Follower:
    """Finds for I/Os, in time order, which completion of their thread they waited for.

    Each completion makes room for one I/O, the oldest first, as where a thread keeps so many in
    flight. Where it had none in flight it waited for the last one, and so does what it submits
    beyond that. Of each thread what is in flight is kept.
    """

    def __init__(self, waiting: Iterable[int]) -> None:
        self._threads = {tid: _Waiting() for tid in waiting}

    def follow(self, tid: Ints, start_ns: Ints, end_ns: Ints, number: Ints) -> Followed:
        """`end_ns` is -1 for an I/O that never ended; `number` grows."""
        found = np.full(len(tid), -1, np.int64)
        gap = np.zeros(len(tid), np.int64)
        rows = np.flatnonzero(np.isin(tid, list(self._threads)))
        columns = (column[rows].tolist() for column in (tid, start_ns, end_ns, number))
        for row, one, start, end, its_number in zip(rows.tolist(), *columns, strict=True):
            thread = self._threads[one]
            cause = thread.cause_of(start)
            if cause is not None:
                found[row], gap[row] = cause[1], start - cause[0]
            if end >= 0:  # later than its start, so that it is not its own cause
                heapq.heappush(thread.in_flight, (max(end, start + 1), its_number))
        return Followed(found, gap)


@dataclass
class _Waiting:
    """A thread: its I/Os in flight, and those that ended and made room for no other one."""

    in_flight: list[tuple[int, int]] = field(default_factory=list)
    ended: deque[tuple[int, int]] = field(default_factory=deque)
    latest: tuple[int, int] | None = None

    def cause_of(self, start_ns: int) -> tuple[int, int] | None:
        while self.in_flight and self.in_flight[0][0] <= start_ns:
            self.latest = heapq.heappop(self.in_flight)
            self.ended.append(self.latest)
        if not self.in_flight:
            self.ended.clear()
        return self.ended.popleft() if self.ended else self.latest
