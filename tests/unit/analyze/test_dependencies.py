# SPDX-License-Identifier: GPL-2.0-only
"""Which threads wait: made ones, whose truth is known; and pairs of I/Os against a plain loop."""

from typing import Any

import duckdb
import numpy as np
import pytest
from numpy.typing import NDArray

from analyze.dependencies import Follower, Thread, infer_threads

Ints = NDArray[np.int64]
COUNT = 4000


def closed(depth: int, think_ns: float, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """Starts and latencies of a thread that keeps `depth` I/Os in flight."""
    ends = [0.0] * depth
    starts, latencies = [], []
    for _ in range(COUNT):
        ends.sort()
        start = ends.pop(0) + rng.exponential(think_ns)
        latency = rng.lognormal(np.log(100_000), 0.7)
        starts.append(start)
        latencies.append(latency)
        ends.append(start + latency)
    order = np.argsort(starts)
    return np.array(starts, np.int64)[order], np.array(latencies, np.int64)[order]


def poisson(iops: float, rng: np.random.Generator) -> tuple[Ints, Ints]:
    starts = np.cumsum(rng.exponential(1e9 / iops, COUNT)).astype(np.int64)
    return starts, rng.lognormal(np.log(100_000), 0.7, COUNT).astype(np.int64)


def timer(period_ns: int, rng: np.random.Generator) -> tuple[Ints, Ints]:
    starts = np.arange(COUNT, dtype=np.int64) * period_ns + rng.integers(0, 500, COUNT)
    return starts, np.minimum(rng.lognormal(np.log(100_000), 0.5, COUNT), period_ns - 1000).astype(
        np.int64
    )


def infer(*threads: tuple[Ints, Ints]) -> list[Thread]:
    connection = duckdb.connect()
    connection.execute("CREATE TABLE rows (tid BIGINT, time_ns BIGINT, latency_ns BIGINT)")
    for tid, (time_ns, latency_ns) in enumerate(threads, start=1):
        part = {"tid": np.full(len(time_ns), tid), "time_ns": time_ns, "latency_ns": latency_ns}
        connection.register("part", part)
        connection.execute("INSERT INTO rows SELECT tid, time_ns, latency_ns FROM part")
        connection.unregister("part")
    return sorted(infer_threads(connection, "rows"), key=lambda thread: thread.tid)


@pytest.mark.parametrize(
    ("make", "waits"),
    [
        (lambda rng: closed(1, 1, rng), True),
        (lambda rng: closed(8, 1, rng), True),
        (lambda rng: closed(1, 300_000, rng), True),
        (lambda rng: poisson(1500, rng), False),
        (lambda rng: poisson(20_000, rng), False),
        (lambda rng: timer(400_000, rng), False),
    ],
    ids=["depth 1", "depth 8", "with think time", "rare", "often", "timer"],
)
def test_a_thread_waits_if_it_does(make: Any, waits: bool) -> None:
    for seed in range(5):
        (found,) = infer(make(np.random.default_rng(seed)))
        assert found.waits == waits, found


def test_threads_are_told_apart_and_few_ios_say_nothing() -> None:
    rng = np.random.default_rng(1)
    few = tuple(column[:10] for column in closed(1, 1, rng))
    found = infer(closed(1, 1, rng), poisson(1500, rng), (few[0], few[1]))
    assert [thread.waits for thread in found] == [True, False, False]
    assert [thread.ios for thread in found] == [COUNT, COUNT, 10]


def plain(tid: Ints, start: Ints, end: Ints, waiting: set[int]) -> list[int]:
    """The latest completion of the same thread before each start, one by one."""
    found = []
    for row in range(len(tid)):
        earlier = [
            (max(end[other], start[other] + 1), other)
            for other in range(len(tid))
            if tid[other] == tid[row]
            and end[other] >= 0
            and max(end[other], start[other] + 1) <= start[row]
        ]
        is_wanted = earlier and tid[row] in waiting
        found.append(max(earlier)[1] if is_wanted else -1)
    return found


@pytest.mark.parametrize("batch", [1, 7, 64, 400])
def test_a_follower_finds_what_a_plain_loop_finds_however_batches_are_cut(batch: int) -> None:
    rng = np.random.default_rng(4)
    tid = rng.integers(1, 5, 400)
    start = np.sort(rng.integers(0, 40_000, 400))
    end = start + rng.integers(0, 900, 400)
    end[rng.random(400) < 0.05] = -1
    follower = Follower({1, 2, 3})
    numbers, gaps = [], []
    for first in range(0, 400, batch):
        part = slice(first, first + batch)
        found = follower.follow(tid[part], start[part], end[part], np.arange(400)[part])
        numbers += found.number.tolist()
        gaps += found.gap_ns.tolist()
    expected = plain(tid, start, end, {1, 2, 3})
    ended = np.maximum(end, start + 1)
    for row, number in enumerate(expected):
        assert (numbers[row] < 0) == (number < 0)
        if number >= 0:  # several may have ended at that moment
            assert ended[numbers[row]] == ended[number]
            assert gaps[row] == start[row] - ended[number]
            assert numbers[row] < row


def test_an_io_that_took_no_time_does_not_wait_for_itself() -> None:
    same = np.zeros(3, np.int64)
    found = Follower({7}).follow(np.full(3, 7), same, same, np.arange(3))
    assert found.number.tolist() == [-1, -1, -1]
