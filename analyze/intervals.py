# SPDX-License-Identifier: GPL-2.0-only
"""Sums up I/Os per interval of time, some intervals at a time."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from analyze.errors import IorecError
from analyze.groups import MAX_GROUPS, Group, make_group
from analyze.opened import OpenedRows
from analyze.row_query import moment
from analyze.selection import Window, recorded_span
from analyze.summary_query import INTERVAL, fine_query, groups_query, part_query, whole_query
from analyze.typed_json import EpochNs
from analyze.units import format_duration

_IOS_AT_ONCE = 1 << 21


@dataclass(frozen=True)
class Interval:
    """The I/Os submitted in `duration_ns` from `start` on; there may be none.

    Rates are per second of recording in it, of its own recording where the key has the host or the
    file, shares those of the time of all intervals. Groups are sorted as those of the summary,
    cache flushes are apart as there; `total` is of all groups.
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

    def condition(self, numbers: range) -> str:
        """SQL for the rows of consecutive intervals."""
        begin_ns, end_ns = self.window(numbers[0]).begin_ns, self.window(numbers[-1]).end_ns
        before = f"time < {moment(end_ns)}" if numbers[-1] + 1 < self.count else "true"
        if numbers[0] == 0:
            return f"(time IS NULL OR {before})"
        return f"time >= {moment(begin_ns)} AND {before}"

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
    capture: OpenedRows, slices: Slices, keys: Sequence[str], sort: str, top: int | None
) -> tuple[Interval, ...]:
    """Every interval in order, with its `top` groups or all; makes the table `fine` of them all.

    Some intervals at a time, so that memory does not grow with the rows. Raises IorecError for more
    groups than fit into memory.
    """
    limit = MAX_GROUPS if top is None else min(top, MAX_GROUPS)
    found = capture.sql(
        f"SELECT {slices.number_sql} AS number, count(*), sum(latency_ns)"
        " FILTER (op IS DISTINCT FROM 'cache_flush') FROM io GROUP BY 1 ORDER BY 1"
    ).fetchall()
    time_ns = sum(latency_ns or 0 for _, _, latency_ns in found)
    ios = {number: count for number, count, _ in found} if capture.can_be_sliced else {}
    made: list[Interval] = []
    room = MAX_GROUPS
    for numbers in _batches(slices.count, ios):
        query = fine_query(keys, slices.number_sql, slices.condition(numbers))
        capture.sql(f"CREATE OR REPLACE TEMP TABLE sliced AS {query}")
        target = "INSERT INTO fine" if made else "CREATE OR REPLACE TEMP TABLE fine AS"
        capture.sql(f"{target} {whole_query(keys, 'sliced')}")
        counts = _group_counts(capture, numbers, keys)
        room -= sum(min(max(count, 1), limit) for count in counts.values())
        if room < 0:
            raise IorecError(
                f"there are more than {MAX_GROUPS:,} rows of groups and intervals",
                "take longer intervals, or fewer groups with --top",
            )
        made += _load_batch(capture, slices, counts, keys, sort, limit, time_ns)
    capture.sql("DROP TABLE sliced")
    return tuple(made)


def _batches(count: int, ios: Mapping[int, int]) -> Iterator[range]:
    """Consecutive intervals, with as many I/Os as fit into memory, or one."""
    begin, in_batch = 0, 0
    for number in range(count):
        if in_batch and in_batch + ios.get(number, 0) > _IOS_AT_ONCE:
            yield range(begin, number)
            begin, in_batch = number, 0
        in_batch += ios.get(number, 0)
    yield range(begin, count)


def _load_batch(
    capture: OpenedRows,
    slices: Slices,
    counts: Mapping[int, int],
    keys: Sequence[str],
    sort: str,
    limit: int,
    time_ns: int,
) -> Iterator[Interval]:
    """Some intervals, with so many groups, from the table `sliced`.

    `time_ns` is the latency of all I/Os.
    """
    part, flushes = (part_query(cache_flushes=is_of, table="sliced") for is_of in (False, True))
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
            group_count=counts[number],
            groups=made(groups.get(number, ()), keys, time_ns),
            total=total,
            cache_flushes=made(flushed.get(number, ()), keys, 0),
        )

    return map(interval, counts)


def _group_counts(capture: OpenedRows, numbers: range, keys: Sequence[str]) -> dict[int, int]:
    """Of some intervals, in their order, from the table `sliced`."""
    part = part_query(cache_flushes=False, table="sliced")
    distinct = f"SELECT DISTINCT {', '.join([INTERVAL, *keys])} FROM ({part})"
    query = f"SELECT {INTERVAL}, count(*) FROM ({distinct}) GROUP BY 1"
    return dict.fromkeys(numbers, 0) | dict(capture.sql(query).fetchall())


def _load(
    capture: OpenedRows, part: str, keys: Sequence[str], sort: str, limit: int
) -> dict[int, list[dict[str, Any]]]:
    """The rows of groups by the number of their interval."""
    rows = capture.records(groups_query(part, keys, sort, limit, histogram=False))
    return {number: [*found] for number, found in groupby(rows, lambda row: row[INTERVAL])}
