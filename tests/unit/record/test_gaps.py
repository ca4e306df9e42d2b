# SPDX-License-Identifier: GPL-2.0-only
"""The spans of lost I/Os, from rings of gaps that are filled by hand."""

from types import SimpleNamespace

import numpy as np
import pytest

from analyze.metadata import ClockReading, Gap
from analyze.typed_json import EpochNs
from iorec.kernel.layouts import GAP, LANE
from iorec.record.gaps import Gaps, Newest, read_newest
from tests.builders import START_NS

MS = 1_000_000
ROWS = 4
COMPLETE, ISSUE = 0, 1  # lanes
CLOCK = ClockReading(1000, 1000 + START_NS)  # monotonic time began at START_NS


class Kernel:
    """Gaps as the kernel programs note them, on two CPUs."""

    def __init__(self) -> None:
        self.lanes_of = {"rq_complete": range(1), "rq_issue": range(1, 2)}
        self.lanes = np.zeros((2, 2), LANE)
        self.gaps = np.zeros((2, 2, ROWS), GAP)

    def begin(self, lane: int, cpu: int, first_ns: int, last_ns: int, lost: int) -> None:
        self.lanes[lane, cpu]["gaps"] += 1
        self.gaps[lane, cpu, self.lanes[lane, cpu]["gaps"] % ROWS] = first_ns, last_ns, lost

    def extend(self, lane: int, cpu: int, last_ns: int, lost: int) -> None:
        row = self.gaps[lane, cpu, self.lanes[lane, cpu]["gaps"] % ROWS]
        row["last_ns"], row["lost"] = last_ns, lost


def newest(kernel: Kernel) -> Newest:
    return read_newest(SimpleNamespace(**vars(kernel)))  # type: ignore[arg-type]


def gaps_of(kernel: Kernel) -> Gaps:
    return Gaps(SimpleNamespace(**vars(kernel)), CLOCK, newest(kernel))  # type: ignore[arg-type]


def gap(first_ns: int, last_ns: int, lost: int, cause: str = "ring_full") -> Gap:
    """One between two moments of monotonic time."""
    return Gap(EpochNs(START_NS + first_ns), EpochNs(START_NS + last_ns), lost, cause)


def test_the_cause_of_a_gap_is_that_of_its_lane() -> None:
    kernel = Kernel()
    gaps = gaps_of(kernel)
    kernel.begin(COMPLETE, 0, 1, 2, 3)
    kernel.begin(ISSUE, 1, 4, 5, 6)
    assert gaps.read(newest(kernel)) == (gap(1, 2, 3), gap(4, 5, 6, "missed_completion"))


def test_gaps_less_than_10_ms_apart_are_one_span() -> None:
    kernel = Kernel()
    gaps = gaps_of(kernel)
    kernel.begin(COMPLETE, 0, 100 * MS, 105 * MS, 7)
    kernel.begin(COMPLETE, 1, 115 * MS - 1, 120 * MS, 11)
    kernel.begin(COMPLETE, 0, 130 * MS, 131 * MS, 13)
    assert gaps.read(newest(kernel)) == (
        gap(100 * MS, 120 * MS, 7 + 11),
        gap(130 * MS, 131 * MS, 13),
    )


def test_a_gap_within_another_does_not_end_it() -> None:
    kernel = Kernel()
    gaps = gaps_of(kernel)
    kernel.begin(COMPLETE, 0, 0, 100 * MS, 5)
    kernel.begin(COMPLETE, 1, 10 * MS, 20 * MS, 3)
    kernel.begin(COMPLETE, 1, 105 * MS, 106 * MS, 2)
    assert gaps.read(newest(kernel)) == (gap(0, 106 * MS, 10),)


def test_a_gap_that_grows_between_two_looks_is_counted_once() -> None:
    kernel = Kernel()
    gaps = gaps_of(kernel)
    kernel.begin(COMPLETE, 0, 0, MS, 5)
    assert gaps.read(newest(kernel)) == (gap(0, MS, 5),)
    kernel.extend(COMPLETE, 0, 3 * MS, 9)
    assert gaps.read(newest(kernel)) == (gap(0, 3 * MS, 9),)
    kernel.begin(COMPLETE, 0, 50 * MS, 51 * MS, 2)
    for _ in range(2):
        assert gaps.read(newest(kernel)) == (gap(0, 3 * MS, 9), gap(50 * MS, 51 * MS, 2))


def test_gaps_that_were_overwritten_are_left_out_and_the_newest_kept() -> None:
    kernel = Kernel()
    gaps = gaps_of(kernel)
    for number in range(ROWS + 2):
        kernel.begin(COMPLETE, 0, number * 20 * MS, number * 20 * MS, 1)
    assert gaps.read(newest(kernel)) == tuple(
        gap(n * 20 * MS, n * 20 * MS, 1) for n in (2, 3, 4, 5)
    )


def test_gaps_of_earlier_captures_are_in_none_of_later_ones() -> None:
    kernel = Kernel()
    kernel.begin(COMPLETE, 0, 0, MS, 5)
    gaps = gaps_of(kernel)
    assert gaps.read(newest(kernel)) == ()
    kernel.begin(COMPLETE, 0, 50 * MS, 51 * MS, 2)
    assert gaps.read(newest(kernel)) == (gap(50 * MS, 51 * MS, 2),)


def test_a_gap_that_goes_on_in_a_later_capture_is_in_both(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel()
    kernel.begin(COMPLETE, 0, 0, MS, 5)
    monkeypatch.setattr(f"{__name__}.CLOCK", ClockReading(2 * MS, 2 * MS + START_NS))
    gaps = gaps_of(kernel)
    kernel.extend(COMPLETE, 0, 4 * MS, 12)
    assert gaps.read(newest(kernel)) == (gap(2 * MS, 4 * MS, 7),)
    kernel.begin(COMPLETE, 0, 50 * MS, 51 * MS, 2)
    for _ in range(2):
        assert gaps.read(newest(kernel)) == (gap(2 * MS, 4 * MS, 7), gap(50 * MS, 51 * MS, 2))


def test_spans_without_number_become_a_thousand_at_most_and_lose_no_loss() -> None:
    kernel = Kernel()
    gaps = gaps_of(kernel)
    for number in range(3001):
        kernel.begin(COMPLETE, 0, number * 15 * MS, number * 15 * MS, 2)
        if number % 3 == 0:
            gaps.read(newest(kernel))
    spans = gaps.read(newest(kernel))
    assert 1 <= len(spans) <= 1000
    assert sum(span.lost for span in spans) == 2 * 3001
    assert (spans[0].start, spans[-1].stop) == (START_NS, START_NS + 3000 * 15 * MS)
