# SPDX-License-Identifier: GPL-2.0-only
"""Sums up I/Os per group, and per interval of time if that is asked for."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import pyarrow as pa

from analyze.column_names import column_name
from analyze.errors import IorecError, unknown_name
from analyze.frames import to_pandas
from analyze.groupings import GROUPINGS, OF_ONE_HOST, SORTS
from analyze.groups import MAX_GROUPS, Group, Latency, make_group
from analyze.intervals import Interval, load_intervals, slice_window
from analyze.opened import OpenedRows
from analyze.schema import SCHEMA
from analyze.summary_query import fine_query, groups_query, part_query

# Columns of a table of groups.
_ARROW_TYPES: dict[Any, pa.DataType] = {
    int: pa.int64(),
    int | None: pa.int64(),
    float | None: pa.float64(),
}
_NUMBER_TYPES, _LATENCY_TYPES = (
    {field.name: _ARROW_TYPES[field.type] for field in fields(part) if field.type in _ARROW_TYPES}
    for part in (Group, Latency)
)
_KEY_TYPES = {field.name: field.type for field in SCHEMA}


@dataclass(frozen=True)
class Summary:
    """Groups from the largest to the smallest; `group_count` counts those left out too.

    Without a key there is one group of all. `intervals` is empty if none were asked for.

    What devices flush from their caches is waited for by an I/O that is in a group already, so it
    is in neither the groups nor the total, but by the same key in groups of its own.
    """

    by: tuple[str, ...]
    key_columns: tuple[str, ...]
    sort: str
    duration_ns: int
    interval_ns: int | None
    group_count: int
    groups: tuple[Group, ...]
    total: Group
    cache_flushes: tuple[Group, ...]
    cache_flush_total: Group | None
    intervals: tuple[Interval, ...]
    completed_bytes: int  # of every I/O that ended, failed ones too

    @property
    def column_types(self) -> dict[str, pa.DataType | None]:
        """The columns of `rows()`, with None for the type of a key that is in no file."""
        return {
            **({"start": SCHEMA.field("time").type} if self.intervals else {}),
            **{name: _KEY_TYPES.get(name) for name in self.key_columns},
            "kind": pa.string(),
            **_NUMBER_TYPES,
            **{f"latency_{name}": kind for name, kind in _LATENCY_TYPES.items()},
        }

    def rows(self) -> Iterator[dict[str, Any]]:
        """A flat row for each group, as `iorec report --csv` prints them.

        The column `kind` tells the groups of cache flushes, `cache_flush`, from those of I/Os,
        `io`. Of intervals there is a row for each group of each, and one without a key for an
        interval without I/Os.
        """
        parts: Sequence[Summary | Interval] = self.intervals or (self,)
        for part in parts:
            start, groups = {}, part.groups
            if isinstance(part, Interval):
                start, groups = {"start": part.start}, part.groups or (part.total,)
            for kind, found in (("io", groups), ("cache_flush", part.cache_flushes)):
                for group in found:
                    yield start | group.key | {"kind": kind} | _numbers(group)

    def frame(self) -> Any:
        """The same rows as a pandas data frame, with the types of `Capture.pandas()`."""
        rows = [*self.rows()]
        try:
            columns = {
                name: pa.array([row.get(name) for row in rows], kind)
                for name, kind in self.column_types.items()
            }
        except OverflowError as error:
            raise IorecError(
                "a sum takes more than the 64 bits of a column: the file is damaged",
                "take the numbers of Summary.groups, which have no bound",
            ) from error
        return to_pandas(pa.table(columns))


def summarize(
    capture: OpenedRows,
    by: str | Sequence[str] = "process",
    *,
    sort: str = "time",
    top: int | None = None,
    histogram: bool = False,
    interval_ns: int | None = None,
) -> Summary:
    """Groups the I/Os in one pass over the files and returns the `top` groups, or all.

    `by` is one of GROUPINGS, or several. With an interval, which is counted from the begin of the
    window, also the `top` groups of each. `sort` is a name of SORTS, as column_name has them.
    Raises IorecError for an unknown grouping or order, and for more groups than fit into memory.
    """
    by = (by,) if isinstance(by, str) else tuple(by)
    keys = _key_columns(by, has_several_hosts=capture.has_several_hosts)
    sort = column_name(sort)
    if sort not in SORTS:
        raise unknown_name("sort by", sort, SORTS)
    if interval_ns is None:
        intervals: tuple[Interval, ...] = ()
        capture.sql(f"CREATE OR REPLACE TEMP TABLE fine AS {fine_query(keys)}")
    else:
        intervals = load_intervals(capture, slice_window(capture, interval_ns), keys, sort, top)
    [(completed_bytes,)] = capture.sql(
        "SELECT coalesce(sum(bytes), 0) FROM fine WHERE bucket IS NOT NULL"
    ).fetchall()
    total, groups, group_count = _load_part(
        capture, keys, by, sort, top, cache_flushes=False, histogram=histogram
    )
    flush_total, flushes, _ = _load_part(
        capture, keys, by, sort, top, cache_flushes=True, histogram=histogram
    )
    seconds_ns = capture.covered_ns
    covered_ns = capture.covered_ns_of_groups(capture.window)

    def make(row: dict[str, Any], time_ns: int) -> Group:
        return make_group(row, keys, time_ns, covered_ns(row))

    return Summary(
        by=by,
        key_columns=tuple(keys),
        sort=sort,
        duration_ns=seconds_ns,
        interval_ns=interval_ns,
        group_count=group_count,
        groups=tuple(make(row, total["time_ns"]) for row in groups),
        total=make_group(total, (), total["time_ns"], seconds_ns),
        cache_flushes=tuple(make(row, 0) for row in flushes),
        cache_flush_total=make_group(flush_total, (), 0, seconds_ns) if flushes else None,
        intervals=intervals,
        completed_bytes=completed_bytes,
    )


def _key_columns(by: Sequence[str], *, has_several_hosts: bool) -> list[str]:
    """The columns of the key, the host before names that are those of one host only."""
    for grouping in by:
        if grouping not in GROUPINGS:
            raise unknown_name("group by", grouping, GROUPINGS)
    columns = [column for grouping in by for column in GROUPINGS[grouping]]
    if has_several_hosts and not OF_ONE_HOST.isdisjoint(columns):
        columns.insert(0, "host")
    return list(dict.fromkeys(columns))


def _numbers(group: Group) -> dict[str, Any]:
    latency = {f"latency_{name}": getattr(group.latency, name) for name in _LATENCY_TYPES}
    return {name: getattr(group, name) for name in _NUMBER_TYPES} | latency


def _load_part(
    capture: OpenedRows,
    keys: Sequence[str],
    by: Sequence[str],
    sort: str,
    top: int | None,
    *,
    cache_flushes: bool,
    histogram: bool,
) -> tuple[dict[str, Any], list[dict[str, Any]], int]:
    """The sums of a part of `fine`, those of its largest groups, and how many groups there are.

    There are no sums of no cache flushes: the queries would take a time that top has not.
    """
    part = part_query(cache_flushes=cache_flushes)
    [(group_count,)] = capture.sql(
        f"SELECT count(*) FROM (SELECT DISTINCT {', '.join(keys) or 'true'} FROM ({part}))"
    ).fetchall()
    wanted = group_count if top is None else min(top, group_count)
    if wanted > MAX_GROUPS:
        raise IorecError(
            f"there are {group_count:,} groups by {' and '.join(by)}",
            f"show the largest of them with --top, {MAX_GROUPS:,} at most",
        )
    if not group_count and cache_flushes:
        return {}, [], 0
    [total] = capture.records(groups_query(part, (), sort, 1, histogram=histogram))
    rows = capture.records(groups_query(part, keys, sort, wanted, histogram=histogram))
    return total, rows, group_count
