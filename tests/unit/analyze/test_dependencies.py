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


@pytest.mark.parametrize("batch", [1, 7, 64, 4000])
@pytest.mark.parametrize("depth", [1, 3, 8])
def test_a_window_moves_on_by_one_for_each_completion(depth: int, batch: int) -> None:
    start, latency = closed(depth, 1000, np.random.default_rng(4))
    end = start + latency
    follower = Follower({1})
    numbers: list[int] = []
    for first in range(0, COUNT, batch):
        part = slice(first, first + batch)
        one = np.ones(len(start[part]), np.int64)
        found = follower.follow(one, start[part], end[part], np.arange(COUNT)[part])
        numbers += found.number.tolist()
        is_found = found.number >= 0
        assert (found.gap_ns[is_found] == (start[part] - end[found.number])[is_found]).all()
    # The nth that is submitted beyond the first ones waits for the nth completion.
    order = np.argsort(end, kind="stable").tolist()
    assert numbers[:depth] == [-1] * depth
    wrong = sum(one != other for one, other in zip(numbers[depth:], order, strict=False))
    assert wrong <= COUNT * 0.02  # where all were done it waits for the last


def test_a_thread_that_awaits_all_of_a_burst_waits_for_the_last() -> None:
    start = np.array([0, 1, 2, 100, 101, 102])
    end = np.array([50, 90, 70, 150, 160, 170])
    found = Follower({7}).follow(np.full(6, 7), start, end, np.arange(6))
    assert found.number.tolist() == [-1, -1, -1, 1, 1, 1]
    assert found.gap_ns.tolist() == [0, 0, 0, 10, 11, 12]


def test_other_threads_and_what_never_ended_are_nobodys_cause() -> None:
    tid = np.array([1, 2, 1, 1, 1])
    start = np.array([0, 5, 20, 40, 60])
    end = np.array([10, 8, -1, 50, 70])
    found = Follower({1}).follow(tid, start, end, np.arange(5))
    assert found.number.tolist() == [-1, -1, 0, 0, 3]


def test_an_io_that_took_no_time_does_not_wait_for_itself() -> None:
    same = np.zeros(3, np.int64)
    found = Follower({7}).follow(np.full(3, 7), same, same, np.arange(3))
    assert found.number.tolist() == [-1, -1, -1]
