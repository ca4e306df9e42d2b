# SPDX-License-Identifier: GPL-2.0-only
"""How what a feed brings is cut into slices of time."""

from dataclasses import replace
from typing import Any

import pyarrow as pa

from analyze.metadata import ClockReading, Metadata
from analyze.typed_json import EpochNs
from iorec.live.slices import Cutter, Slice
from tests.builders import SECOND_NS, START_NS, described, table

MS = SECOND_NS // 1000


def batch(*ended_ms: int, took_ms: int = 1, **columns: Any) -> pa.RecordBatch:
    """I/Os that ended so long after the start."""
    begun = [START_NS + (end - took_ms) * MS for end in ended_ms]
    columns = {"latency_ns": took_ms * MS, **columns}
    return table(len(begun), time=begun, **columns).combine_chunks().to_batches()[0]


def account(until_ms: int, recorded: int, *, lost: int = 0) -> Metadata:
    """Of a recording that began at START_NS, by a clock that began at one second."""
    metadata = described(table(1))
    assert metadata.counts is not None and metadata.clock is not None
    stop = ClockReading(SECOND_NS + until_ms * MS, START_NS + until_ms * MS)
    return replace(
        metadata,
        stopped_at=EpochNs(START_NS + until_ms * MS),
        clock=replace(metadata.clock, stop=stop),
        counts=replace(metadata.counts, recorded=recorded, lost={"ring_full": lost}),
    )


def cut(cutter: Cutter, now_ms: int = 0) -> list[Slice]:
    return [*cutter.cut(SECOND_NS + now_ms * MS)]


def spans(parts: list[Slice]) -> list[tuple[int, int, int]]:
    """Begin, end and rows of each."""
    begins, ends = ([(part.window[end] - START_NS) // MS for part in parts] for end in (0, 1))
    return [*zip(begins, ends, (len(part.table) for part in parts), strict=True)]


def test_an_io_is_in_the_slice_in_which_it_ended() -> None:
    cutter = Cutter(SECOND_NS)
    assert cutter.due_s(0) is None
    assert cut(cutter, 5000) == []
    cutter.add(batch(100, 900), account(950, 2))
    assert cut(cutter) == []
    cutter.add(batch(999, 1000, took_ms=800), account(1400, 4))
    assert spans(cut(cutter)) == [(0, 1000, 3)]
    assert spans([*cutter.rest()]) == [(1000, 1400, 1)]
    assert [*cutter.rest()] == []


def test_silence_is_slices_without_ios() -> None:
    cutter = Cutter(SECOND_NS)
    cutter.add(batch(100), account(150, 1))
    assert cutter.due_s(SECOND_NS + 500 * MS) == 1.5
    assert spans(cut(cutter, 2500)) == [(0, 1000, 1), (1000, 2000, 0)]
    assert all(part.metadata.stopped_at >= part.window.end_ns for part in cut(cutter, 3500))


def test_what_comes_late_is_in_the_next_slice() -> None:
    cutter = Cutter(SECOND_NS)
    cutter.add(batch(100), account(150, 1))
    assert spans(cut(cutter, 1000)) == [(0, 1000, 1)]
    cutter.add(batch(990, 1200), account(2000, 3))
    assert spans(cut(cutter)) == [(1000, 2000, 2)]


def test_many_slices_that_nobody_took_are_one() -> None:
    cutter = Cutter(SECOND_NS)
    cutter.add(batch(100), account(150, 1))
    assert spans(cut(cutter, 3_600_000)) == [(0, 3_600_000, 1)]


def test_what_has_not_completed_is_in_the_last_slice() -> None:
    cutter = Cutter(SECOND_NS)
    cutter.add(batch(100, latency_ns=None), account(1500, 0))
    assert spans(cut(cutter)) == [(0, 1000, 0)]
    assert spans([*cutter.rest()]) == [(1000, 1500, 1)]


def test_rows_are_bounded_and_what_is_missing_is_counted_once() -> None:
    cutter = Cutter(SECOND_NS, most_rows=5)
    cutter.add(batch(100, 200, 300), account(400, 3))
    cutter.add(batch(500, 600, 700), account(800, 6))  # no room
    cutter.add(batch(900), account(1000, 17, lost=2))  # the feed left out ten
    [first] = cut(cutter)
    assert (len(first.table), first.left_out, first.lost) == (4, 13, 2)
    cutter.add(batch(1500), account(2000, 18, lost=2))
    [second] = cut(cutter)
    assert (len(second.table), second.left_out, second.lost) == (1, 0, 0)
