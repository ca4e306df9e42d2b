# SPDX-License-Identifier: GPL-2.0-only
"""Sums up I/Os per group: counts, bytes, rates and how their latency is distributed."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from analyze.errors import IorecError
from analyze.latency import edges_ns
from analyze.opened import OpenedRows
from analyze.summary_query import (
    GROUPINGS,
    OF_ONE_HOST,
    SORTS,
    fine_query,
    groups_query,
    part_query,
)

Key = dict[str, str | int | None]

_SECOND_NS = 1_000_000_000
# What fits into memory; more can be counted, but not all be returned.
MAX_GROUPS = 20_000


@dataclass(frozen=True)
class HistogramBin:
    """I/Os with a latency of `low_ns` up to, but not including, `high_ns`."""

    low_ns: int
    high_ns: int
    ios: int


@dataclass(frozen=True)
class Latency:
    """Latency of the I/Os that succeeded; all None, and a sum of 0, if none did.

    A percentile lies within 0.3 % of that of numpy.percentile, the others are exact.
    """

    sum_ns: int
    avg_ns: float | None
    min_ns: int | None
    p50_ns: float | None
    p95_ns: float | None
    p99_ns: float | None
    p999_ns: float | None
    max_ns: int | None


@dataclass(frozen=True)
class Group:
    """The I/Os that share a key; a key column is None where it is unknown.

    Bytes are without those of failed I/Os. Rates are per second of recording in the window.
    `time_ns` is the latency of all I/Os, failed ones too, and `time_share` the part of it in that
    of all groups, None for cache flushes. `queue_share` is the part of the latency spent before the
    I/O went to the device.
    """

    key: Key
    ios: int
    reads: int
    writes: int
    flushes: int
    read_bytes: int
    write_bytes: int
    discarded_bytes: int
    zeroed_bytes: int
    in_flight: int
    errors: int
    ios_per_s: float | None
    bytes_per_s: float | None
    time_ns: int
    time_share: float | None
    queue_share: float | None
    latency: Latency
    histogram: tuple[HistogramBin, ...] | None


@dataclass(frozen=True)
class Summary:
    """Groups from the largest to the smallest; `group_count` counts those left out too.

    What devices flush from their caches is waited for by an I/O that is in a group already, so it
    is in neither the groups nor the total, but by the same key in groups of its own.
    """

    by: tuple[str, ...]
    key_columns: tuple[str, ...]
    sort: str
    duration_ns: int
    group_count: int
    groups: tuple[Group, ...]
    total: Group
    cache_flushes: tuple[Group, ...]
    cache_flush_total: Group | None
    completed_bytes: int  # of every I/O that ended, failed ones too


def summarize(
    capture: OpenedRows,
    by: Sequence[str] = ("process",),
    *,
    sort: str = "time",
    top: int | None = None,
    histogram: bool = False,
) -> Summary:
    """Groups the I/Os in one pass over the files and returns the `top` groups, or all.

    Raises IorecError for an unknown grouping or order, and for more groups than fit into memory.
    """
    keys = _key_columns(by, has_several_hosts=capture.has_several_hosts)
    if sort not in SORTS:
        raise _unknown("sort by", sort, SORTS)
    capture.sql(f"CREATE OR REPLACE TEMP TABLE fine AS {fine_query(keys)}")
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
        group_count=group_count,
        groups=tuple(_make_group(row, keys, total["time_ns"], seconds_ns) for row in groups),
        total=_make_group(total, (), total["time_ns"], seconds_ns),
        cache_flushes=tuple(_make_group(row, keys, 0, seconds_ns) for row in flushes),
        cache_flush_total=_make_group(flush_total, (), 0, seconds_ns) if flushes else None,
        completed_bytes=completed_bytes,
    )


def _key_columns(by: Sequence[str], *, has_several_hosts: bool) -> list[str]:
    """The columns of the key, the host before names that are those of one host only."""
    for grouping in by:
        if grouping not in GROUPINGS:
            raise _unknown("group by", grouping, GROUPINGS)
    columns = [column for grouping in by for column in GROUPINGS[grouping]]
    if has_several_hosts and not OF_ONE_HOST.isdisjoint(columns):
        columns.insert(0, "host")
    return list(dict.fromkeys(columns))


def _unknown(what: str, name: str, known: Iterable[str]) -> IorecError:
    return IorecError(f"cannot {what} {name!r}", f"choose from: {', '.join(known)}", exit_code=2)


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
        f"SELECT count(*) FROM (SELECT DISTINCT {', '.join(keys)} FROM ({part}))"
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


def _make_group(row: dict[str, Any], keys: Sequence[str], total_ns: int, duration_ns: int) -> Group:
    counts = ("ios", "reads", "writes", "flushes", "in_flight", "errors")
    sizes = ("read_bytes", "write_bytes", "discarded_bytes", "zeroed_bytes")
    return Group(
        key={key: row[key] for key in keys},
        **{name: row[name] for name in (*counts, *sizes)},
        ios_per_s=_ratio(row["ios"] * _SECOND_NS, duration_ns),
        bytes_per_s=_ratio(row["moved_bytes"] * _SECOND_NS, duration_ns),
        time_ns=row["time_ns"],
        time_share=_ratio(row["time_ns"], total_ns),
        queue_share=_queue_share(row["queue_sum_ns"], row["device_sum_ns"]),
        latency=Latency(
            sum_ns=row["latency_sum_ns"],
            avg_ns=row["avg_ns"],
            min_ns=row["min_ns"],
            p50_ns=row["p50_ns"],
            p95_ns=row["p95_ns"],
            p99_ns=row["p99_ns"],
            p999_ns=row["p999_ns"],
            max_ns=row["max_ns"],
        ),
        histogram=None if row["histogram"] is None else _make_histogram(row["histogram"]),
    )


def _queue_share(queue_sum_ns: int | None, device_sum_ns: int | None) -> float | None:
    if queue_sum_ns is None or device_sum_ns is None:
        return None
    return _ratio(queue_sum_ns, queue_sum_ns + device_sum_ns)


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _make_histogram(counts: Sequence[int]) -> tuple[HistogramBin, ...]:
    """From 0 to the last bin that is not empty; each but the first is twice as wide as the last."""
    used = max((index + 1 for index, count in enumerate(counts) if count), default=0)
    return tuple(
        HistogramBin(int(low_ns) if index else 0, int(high_ns), counts[index])
        for index, (low_ns, high_ns) in enumerate(pairwise(edges_ns(np.arange(used + 1))))
    )
