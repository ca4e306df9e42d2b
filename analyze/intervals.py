# SPDX-License-Identifier: GPL-2.0-only
"""Sums up I/Os per interval of time, from the sums that a summary made of all rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from analyze.errors import IorecError
from analyze.groups import MAX_GROUPS, Group, make_group
from analyze.opened import OpenedRows
from analyze.selection import Window, recorded_span
from analyze.summary_query import INTERVAL, groups_query, part_query
from analyze.typed_json import EpochNs
from analyze.units import format_duration


@dataclass(frozen=True)
class Interval:
    """The I/Os submitted in `duration_ns` from `start` on; there may be none.

    Rates are per second of recording in it, of its own recording where the key has the host or the
    file, shares those of the time of all intervals. Groups are
    sorted as those of the summary, cache flushes are apart as there; `total` is of all groups.
    """

    start: EpochNs
    duration_ns: int
    group_count: int
    groups: tuple[Group, ...]
    total: Group
    cache_flushes: tuple[Group, ...]


@dataclass(frozen=True)
class Slices:
    """The window cut into intervals from its begin on; the last one may be shorter."""

    begin_ns: int
    end_ns: int
    length_ns: int

    @property
    def count(self) -> int:
        """How many they are, at least one."""
        return max(-(-(self.end_ns - self.begin_ns) // self.length_ns), 1)

    @property
    def number_sql(self) -> str:
        """SQL for the interval of a row; a row outside of all belongs to the nearest."""
        number = f"(epoch_ns(time) - {self.begin_ns}) // {self.length_ns}"
        return f"least(greatest({number}, 0), {self.count - 1})::INTEGER"

    def window(self, number: int) -> Window:
        """The span of one of them."""
        begin_ns = self.begin_ns + number * self.length_ns
        return Window(begin_ns, min(begin_ns + self.length_ns, self.end_ns))


def slice_window(capture: OpenedRows, length_ns: int) -> Slices:
    """Cuts what was recorded of the window; raises IorecError if that makes too many intervals."""
    if length_ns <= 0:
        raise IorecError("an interval of 0 has no end", "give one such as --interval 1s", 2)
    end_ns = min(capture.window.end_ns, recorded_span(capture.files).end_ns)
    slices = Slices(capture.window.begin_ns, end_ns, length_ns)
    if slices.count > MAX_GROUPS:
        raise IorecError(
            f"there are {slices.count:,} intervals of {format_duration(length_ns)}",
            f"take longer ones, or narrow the time with -b and -e: {MAX_GROUPS:,} at most",
            exit_code=2,
        )
    return slices


def load_intervals(
    capture: OpenedRows,
    slices: Slices,
    keys: Sequence[str],
    sort: str,
    top: int | None,
    time_ns: int,
) -> tuple[Interval, ...]:
    """Every interval in order, with its `top` groups or all, from the table `fine`.

    `time_ns` is the latency of all I/Os. Raises IorecError for more groups than fit into memory.
    """
    part, flushes = part_query(cache_flushes=False), part_query(cache_flushes=True)
    counts = _group_counts(capture, part, keys)
    limit = MAX_GROUPS if top is None else min(top, MAX_GROUPS)
    row_count = sum(min(count, limit) for count in counts.values()) + slices.count - len(counts)
    if row_count > MAX_GROUPS:
        raise IorecError(
            f"there are {row_count:,} rows of groups and intervals",
            f"take longer intervals, or fewer groups with --top: {MAX_GROUPS:,} at most",
        )
    by_interval = [INTERVAL, *keys]
    [nothing] = capture.records(groups_query(f"{part} AND false", (), sort, 1, histogram=False))
    totals = _load(capture, part, [INTERVAL], sort, 1)
    groups = _load(capture, part, by_interval, sort, limit)
    flushed = _load(capture, flushes, by_interval, sort, limit)

    def interval(number: int) -> Interval:
        window = slices.window(number)
        covered_ns = capture.covered_ns_of_groups(window)

        def made(rows: Sequence[dict[str, Any]], keys: Sequence[str], whole_ns: int) -> Any:
            return tuple(make_group(row, keys, whole_ns, covered_ns(row)) for row in rows)

        [total] = made(totals.get(number, [nothing]), (), time_ns)
        return Interval(
            start=EpochNs(window.begin_ns),
            duration_ns=window.end_ns - window.begin_ns,
            group_count=counts.get(number, 0),
            groups=made(groups.get(number, ()), keys, time_ns),
            total=total,
            cache_flushes=made(flushed.get(number, ()), keys, 0),
        )

    return tuple(map(interval, range(slices.count)))


def _group_counts(capture: OpenedRows, part: str, keys: Sequence[str]) -> dict[int, int]:
    distinct = f"SELECT DISTINCT {', '.join([INTERVAL, *keys])} FROM ({part})"
    query = f"SELECT {INTERVAL}, count(*) FROM ({distinct}) GROUP BY 1"
    return dict(capture.sql(query).fetchall())


def _load(
    capture: OpenedRows, part: str, keys: Sequence[str], sort: str, limit: int
) -> dict[int, list[dict[str, Any]]]:
    """The rows of groups by the number of their interval."""
    rows = capture.records(groups_query(part, keys, sort, limit, histogram=False))
    return {number: [*found] for number, found in groupby(rows, lambda row: row[INTERVAL])}
