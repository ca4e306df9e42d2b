# SPDX-License-Identifier: GPL-2.0-only
"""Sums up I/Os per group, and per interval of time if that is asked for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from analyze.errors import IorecError, unknown_name
from analyze.groups import MAX_GROUPS, Group, make_group
from analyze.intervals import Interval, load_intervals, slice_window
from analyze.opened import OpenedRows
from analyze.summary_query import (
    GROUPINGS,
    OF_ONE_HOST,
    SORTS,
    fine_query,
    groups_query,
    part_query,
)


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


def summarize(
    capture: OpenedRows,
    by: Sequence[str] = ("process",),
    *,
    sort: str = "time",
    top: int | None = None,
    histogram: bool = False,
    interval_ns: int | None = None,
) -> Summary:
    """Groups the I/Os in one pass over the files and returns the `top` groups, or all.

    With an interval, which is counted from the begin of the window, also the `top` groups of each.
    Raises IorecError for an unknown grouping or order, and for more groups than fit into memory.
    """
    keys = _key_columns(by, has_several_hosts=capture.has_several_hosts)
    if sort not in SORTS:
        raise unknown_name("sort by", sort, SORTS)
    slices = None if interval_ns is None else slice_window(capture, interval_ns)
    query = fine_query(keys, slices.number_sql if slices else None)
    capture.sql(f"CREATE OR REPLACE TEMP TABLE fine AS {query}")
    [(completed_bytes,)] = capture.sql(
        "SELECT coalesce(sum(bytes), 0) FROM fine WHERE bucket IS NOT NULL"
    ).fetchall()
    total, groups, group_count = _load_part(
        capture, part_query(cache_flushes=False), keys, by, sort, top, histogram=histogram
    )
    flush_total, flushes, _ = _load_part(
        capture, part_query(cache_flushes=True), keys, by, sort, top, histogram=histogram
    )
    seconds_ns = capture.covered_ns
    return Summary(
        by=tuple(by),
        key_columns=tuple(keys),
        sort=sort,
        duration_ns=seconds_ns,
        interval_ns=interval_ns,
        group_count=group_count,
        groups=tuple(make_group(row, keys, total["time_ns"], seconds_ns) for row in groups),
        total=make_group(total, (), total["time_ns"], seconds_ns),
        cache_flushes=tuple(make_group(row, keys, 0, seconds_ns) for row in flushes),
        cache_flush_total=make_group(flush_total, (), 0, seconds_ns) if flushes else None,
        intervals=load_intervals(capture, slices, keys, sort, top, total["time_ns"])
        if slices
        else (),
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


def _load_part(
    capture: OpenedRows,
    part: str,
    keys: Sequence[str],
    by: Sequence[str],
    sort: str,
    top: int | None,
    *,
    histogram: bool,
) -> tuple[dict[str, Any], list[dict[str, Any]], int]:
    """The sums of a part of `fine`, those of its largest groups, and how many groups there are."""
    [(group_count,)] = capture.sql(
        f"SELECT count(*) FROM (SELECT DISTINCT {', '.join(keys) or 'true'} FROM ({part}))"
    ).fetchall()
    wanted = group_count if top is None else min(top, group_count)
    if wanted > MAX_GROUPS:
        raise IorecError(
            f"there are {group_count:,} groups by {' and '.join(by)}",
            f"show the largest of them with --top, {MAX_GROUPS:,} at most",
        )
    [total] = capture.records(groups_query(part, (), sort, 1, histogram=histogram))
    rows = capture.records(groups_query(part, keys, sort, wanted, histogram=histogram))
    return total, rows, group_count
