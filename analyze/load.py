# SPDX-License-Identifier: GPL-2.0-only
"""Measures how busy devices were, in memory that grows only with the I/Os in flight at a moment."""

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np

from analyze.column_names import column_name
from analyze.errors import unknown_name
from analyze.latency import add_up_buckets, bucket_sql
from analyze.numbered_rows import (
    Ints,
    Numbers,
    Rows,
    only,
    parts,
    reads_by_offset,
    rows_by_time,
)
from analyze.opened import OpenedRows
from analyze.schema import MOVING_OPS
from analyze.units import ratio

_NOWHERE = -1
_QUEUE_FRACTIONS = np.array([0.5, 0.95, 0.99])
_NO_BUCKETS = np.empty((0, 4), np.int64)
_ADDED_UP = (
    *("moved_ios", "moved_bytes", "placed_ios", "sequential_ios"),
    *("read_bytes", "distinct_bytes"),
)
# What devices can be sorted by, the largest first: every column of their table.
LOAD_SORTS = {
    "busy": "busy_ns",
    "ios": "ios",
    "in-flight": "time_ns",
    "most": "max_in_flight",
    "queue-p50": "queue_p50_ns",
    "queue-p95": "queue_p95_ns",
    "queue-p99": "queue_p99_ns",
    "queue-max": "queue_max_ns",
    "size": "mean_bytes",
    "sequential": "sequential_share",
    "reread": "reread_share",
}


@dataclass(frozen=True)
class Load:
    """How busy a device was with the I/Os that were submitted in the window; None if unknown.

    `busy_share`: of the recorded time, that with at least one I/O in flight, from submission to
    completion, as iostat's %util. `mean_in_flight`: `time_ns`, all I/Os' time in flight, over the
    recorded time, as its aqu-sz. `mean_bytes`: of reads and writes that succeeded.
    `sequential_share`: of the I/Os at an offset, those that begin where the one before, with the
    same op on the same device, ended; as BCC's biopattern, which does not tell ops apart.
    `reread_share`: of the bytes that were read, those that had been read before. The percentiles
    of the time in the queue are as exact as those of latencies. Cache flushes are in no number: the
    I/O that waits for one is.
    """

    device: str | None
    ios: int
    busy_ns: int
    busy_share: float | None
    time_ns: int
    mean_in_flight: float | None
    max_in_flight: int
    mean_bytes: float | None
    sequential_share: float | None
    reread_share: float | None
    queue_p50_ns: float | None
    queue_p95_ns: float | None
    queue_p99_ns: float | None
    queue_max_ns: int | None


@dataclass(frozen=True)
class Loads:
    """Every device, the busiest first or as `sort` says; in all, busy is that any device was."""

    sort: str
    duration_ns: int
    devices: tuple[Load, ...]
    total: Load


@dataclass
class _Account:
    """What is known of a device's I/Os up to a moment."""

    ios: int = 0
    busy_ns: int = 0
    time_ns: int = 0
    max_in_flight: int = 0
    moved_ios: int = 0
    moved_bytes: int = 0
    placed_ios: int = 0
    sequential_ios: int = 0
    read_bytes: int = 0
    distinct_bytes: int = 0
    busy_until_ns: int = 0
    stops_ns: Ints = field(default_factory=lambda: np.empty(0, np.int64))  # of those in flight
    next_offsets: dict[int, int] = field(default_factory=dict)  # by op
    read_until: int = 0  # in the order of offsets


def load_loads(capture: OpenedRows, sort: str = "busy") -> Loads:
    """Reads all I/Os in the order of their submission, then the reads in that of their offsets.

    Raises IorecError for an unknown order.
    """
    sort = column_name(sort)
    if sort not in LOAD_SORTS:
        raise unknown_name("sort devices by", sort, LOAD_SORTS)
    total, accounts = _Account(), defaultdict[int, _Account](_Account)
    devices = Numbers()
    for rows in rows_by_time(capture, devices):
        _add_times(total, rows)
        for number, mine in parts(rows, "device"):
            _add_times(accounts[number], mine)
            _add_places(accounts[number], mine)
    for number, mine in reads_by_offset(capture, devices):
        _add_reads(accounts[number], mine["offset"], mine["bytes"])
    for name in _ADDED_UP:
        setattr(total, name, sum(getattr(account, name) for account in accounts.values()))
    queues = _load_queues(capture)
    loads = [
        _make_load(name, accounts[number], capture.covered_ns, queues.get(name, _NO_BUCKETS))
        for name, number in devices.items()
        if number in accounts
    ]
    loads.sort(key=lambda load: (-(getattr(load, LOAD_SORTS[sort]) or 0), load.device or ""))
    all_queues = np.concatenate([_NO_BUCKETS, *queues.values()])
    return Loads(
        sort=sort,
        duration_ns=capture.covered_ns,
        devices=tuple(loads),
        total=_make_load(None, total, capture.covered_ns, all_queues),
    )


def _add_times(account: _Account, rows: Rows) -> None:
    """Adds the time that further I/Os were in flight; both ends of each are known."""
    start_ns, stop_ns = rows["start_ns"], rows["stop_ns"]
    account.ios += len(start_ns)
    account.time_ns += int((stop_ns - start_ns).sum())
    busy_ns, account.busy_until_ns = _newly_covered(start_ns, stop_ns, account.busy_until_ns)
    account.busy_ns += busy_ns
    # All that have stopped by then had started before, in this batch or in an earlier one.
    stops_ns = np.sort(np.concatenate([account.stops_ns, stop_ns]))
    stopped = np.searchsorted(stops_ns, start_ns, side="right")
    in_flight = len(account.stops_ns) + np.arange(1, len(start_ns) + 1) - stopped
    account.max_in_flight = max(account.max_in_flight, int(in_flight.max(initial=0)))
    account.stops_ns = stops_ns[stopped.max(initial=0) :]


def _add_places(account: _Account, rows: Rows) -> None:
    """Adds where further I/Os went, and how much data they moved."""
    moved = rows["bytes"][rows["is_good"] & (rows["op"] < len(MOVING_OPS))]
    account.moved_ios += len(moved)
    account.moved_bytes += int(moved.sum())
    for op, placed in parts(only(rows, rows["is_placed"]), "op"):
        begin, end = placed["offset"], placed["offset"] + placed["bytes"]
        previous_end = np.concatenate([[account.next_offsets.get(op, _NOWHERE)], end[:-1]])
        account.placed_ios += len(begin)
        account.sequential_ios += int((begin == previous_end).sum())
        account.next_offsets[op] = int(end[-1])


def _add_reads(account: _Account, offset: Ints, size: Ints) -> None:
    """Adds further reads, none of which begins before those that were added."""
    account.read_bytes += int(size.sum())
    distinct, account.read_until = _newly_covered(offset, offset + size, account.read_until)
    account.distinct_bytes += distinct


def _newly_covered(begin: Ints, end: Ints, reached: int) -> tuple[int, int]:
    """How much further intervals, in the order of their begin, cover, and how far all reach."""
    reaches = np.maximum.accumulate(np.concatenate([[reached], end]))
    covered = np.maximum(end - np.maximum(begin, reaches[:-1]), 0)
    return int(covered.sum()), int(reaches[-1])


def _load_queues(capture: OpenedRows) -> dict[str | None, Ints]:
    """Per device the buckets of the time in the queue, as rows of bucket, I/Os, least and most."""
    query = f"""
        SELECT {capture.named("device")} AS device, {bucket_sql("queue_ns")} AS bucket,
            count(*), min(queue_ns), max(queue_ns)
        FROM io WHERE op <> 'cache_flush' AND errno = 0 AND queue_ns IS NOT NULL GROUP BY ALL
    """
    queues = defaultdict[str | None, list[tuple[int, ...]]](list)
    for device, *bucket in capture.sql(query).fetchall():
        queues[device].append(tuple(bucket))
    return {device: np.array(buckets, np.int64) for device, buckets in queues.items()}


def _make_load(device: str | None, account: _Account, covered_ns: int, queue: Ints) -> Load:
    p50, p95, p99 = (
        add_up_buckets(*queue.T).percentiles_ns(_QUEUE_FRACTIONS).tolist()
        if len(queue)
        else [None] * 3
    )
    return Load(
        device=device,
        ios=account.ios,
        busy_ns=account.busy_ns,
        busy_share=ratio(account.busy_ns, covered_ns),
        time_ns=account.time_ns,
        mean_in_flight=ratio(account.time_ns, covered_ns),
        max_in_flight=account.max_in_flight,
        mean_bytes=ratio(account.moved_bytes, account.moved_ios),
        sequential_share=ratio(account.sequential_ios, account.placed_ios),
        reread_share=ratio(account.read_bytes - account.distinct_bytes, account.read_bytes),
        queue_p50_ns=p50,
        queue_p95_ns=p95,
        queue_p99_ns=p99,
        queue_max_ns=int(queue[:, 3].max()) if len(queue) else None,
    )
