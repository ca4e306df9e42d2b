# SPDX-License-Identifier: GPL-2.0-only
"""Collects the spans of time in which I/Os were lost."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from analyze.metadata import ClockReading, Gap
from iorec.kernel.plan import gap_ns
from iorec.kernel.probes import Probes

_MOST_SPANS = 1000


class _Span(NamedTuple):
    """The first and the last ns of monotonic time at which I/Os were lost, and how many."""

    first_ns: int
    last_ns: int
    lost: int


class Newest(NamedTuple):
    """The newest gap of each lane on each CPU at one moment: its number and its row."""

    numbers: NDArray[np.uint64]
    rows: NDArray[np.void]


def read_newest(probes: Probes) -> Newest:
    """Copies what may still grow; gaps before them do not change any more."""
    numbers = probes.lanes["gaps"].copy()
    lane_count, cpu_count, row_count = probes.gaps.shape
    places = np.arange(lane_count)[:, None], np.arange(cpu_count), numbers % row_count
    return Newest(numbers, probes.gaps[places])


class Gaps:
    """The gaps of one capture, as many as it can hold: near ones become one.

    What had been lost when it began is of the capture before, also of a gap that goes on.
    """

    def __init__(self, probes: Probes, clock: ClockReading, begun: Newest) -> None:
        self._probes = probes
        self._clock = clock
        self._begun = begun
        self._read = np.where(begun.numbers > 0, begun.numbers - 1, 0)
        self._causes = {
            lane: "ring_full" if program.endswith("_complete") else "missed_completion"
            for program, lanes in probes.lanes_of.items()
            for lane in lanes
        }
        self._ended: dict[str, list[_Span]] = {cause: [] for cause in self._causes.values()}

    def read(self, newest: Newest) -> tuple[Gap, ...]:
        """All of them until that moment, in time order of each cause of loss.

        To be called each second: the kernel keeps the newest ones of each lane.
        """
        newest_spans: dict[str, list[_Span]] = {cause: [] for cause in self._ended}
        for lane, cpu in np.argwhere(newest.numbers > self._read).tolist():
            last, rows = int(newest.numbers[lane, cpu]), self._probes.gaps[lane, cpu]
            cause = self._causes[lane]
            for number in range(max(int(self._read[lane, cpu]), last - len(rows)) + 1, last + 1):
                row = rows[number % len(rows)] if number < last else newest.rows[lane, cpu]
                span = self._span(row, lane, cpu, number)
                if span.lost > 0:
                    (self._ended if number < last else newest_spans)[cause].append(span)
            self._read[lane, cpu] = last - 1  # the newest one may still grow
        pause_ns = gap_ns(self._probes.lanes.shape[1])  # nearer losses are one gap there too
        self._ended = {cause: _merge(spans, pause_ns) for cause, spans in self._ended.items()}
        time_at = self._clock.time_at
        return tuple(
            Gap(time_at(span.first_ns), time_at(span.last_ns), span.lost, cause)
            for cause, spans in self._ended.items()
            for span in _merge([*spans, *newest_spans[cause]], pause_ns)
        )

    def _span(self, row: np.void, lane: int, cpu: int, number: int) -> _Span:
        span = _Span(int(row["first_ns"]), int(row["last_ns"]), int(row["lost"]))
        if number != self._begun.numbers[lane, cpu]:
            return span
        before = int(self._begun.rows[lane, cpu]["lost"])
        first_ns = max(span.first_ns, self._clock.monotonic_ns)
        return _Span(first_ns, max(span.last_ns, first_ns), span.lost - before)


def _merge(spans: Iterable[_Span], pause_ns: int) -> list[_Span]:
    while True:
        merged: list[_Span] = []
        for first, last, lost in sorted(spans):
            if merged and first - merged[-1].last_ns < pause_ns:
                before = merged.pop()
                merged.append(_Span(before.first_ns, max(before.last_ns, last), before.lost + lost))
            else:
                merged.append(_Span(first, last, lost))
        if len(merged) <= _MOST_SPANS:
            return merged
        pause_ns *= 2
