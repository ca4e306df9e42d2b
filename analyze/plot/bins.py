# SPDX-License-Identifier: GPL-2.0-only
"""Counting rows into bins: the one query frame that all charts share."""

from dataclasses import dataclass
from math import prod

import numpy as np
from duckdb import DuckDBPyConnection

from analyze.errors import IorecError
from analyze.latency import FloatArray, Numbers
from analyze.opened import OpenedRows
from analyze.plot.timeline import Timeline
from analyze.schema import BLOCK_LAYERS, FLUSH_OPS, READ_OPS, WRITE_OPS

Cells = dict[str, FloatArray]

OPS = ("read", "write", "flush", "discard", "other", "cache flush")
# The wait for it is part of that for the I/O which caused it, so it is in no sum over all ops.
CACHE_FLUSH = OPS.index("cache flush")

# `discard` stands for every op that frees or zeroes space without moving data.
_INDEX_OF_OP = {
    "read": 0,
    "write": 1,
    "zone_append": 1,
    "flush": 2,
    "discard": 3,
    "secure_erase": 3,
    "write_zeroes": 3,
    "cache_flush": CACHE_FLUSH,
    # Last, as DuckDB tries them in this order.
    **(dict.fromkeys(READ_OPS, 0) | dict.fromkeys(WRITE_OPS, 1) | dict.fromkeys(FLUSH_OPS, 2)),
}
_CASES = " ".join(f"WHEN '{op}' THEN {index}" for op, index in _INDEX_OF_OP.items())
OP_INDEX = f"CASE op {_CASES} ELSE {OPS.index('other')} END"

# Values from a stranger are brought into range here: a time outside of the window to its first or
# last moment, a negative latency or size to 0, an end after the window to its last moment. An I/O
# without a latency was in flight until then. CASE, as least() and greatest() take twice the time.
_TIMED = f"""
    WITH timed AS (
        SELECT *,
            {OP_INDEX} AS op_index,
            coalesce(errno <> 0, false) AS has_failed,
            CASE WHEN epoch_ns(time) BETWEEN $begin AND $begin + $last THEN epoch_ns(time) - $begin
                WHEN epoch_ns(time) > $begin THEN $last ELSE 0 END AS start_ns,
            CASE WHEN latency_ns BETWEEN 0 AND $last - start_ns THEN latency_ns
                WHEN latency_ns < 0 THEN 0 ELSE $last - start_ns END AS busy_ns,
            start_ns + busy_ns AS stop_ns,
            start_ns // $width AS start_bin,
            stop_ns // $width AS stop_bin,
            CASE WHEN moved > 0 THEN moved ELSE 0 END AS size_bytes
        FROM io
    )
"""


def device_sql(capture: OpenedRows) -> str:
    """SQL for the device of a row, by its name in `capture.devices`; calls are all for files."""
    is_of_disks = capture.selection.layer in (None, *BLOCK_LAYERS)
    return capture.named("device") if is_of_disks else "'files'"


@dataclass(frozen=True)
class Devices:
    """The devices with the most time in I/O, longest first, out of `count`."""

    shown: tuple[str | None, ...]
    count: int

    @property
    def left_out_count(self) -> int:
        return self.count - len(self.shown)

    def first(self, limit: int) -> "Devices":
        """The same with less of them shown."""
        return Devices(self.shown[:limit], self.count)


@dataclass(frozen=True)
class Series:
    """A quantity per op and time bin; mean and peak are those of the sum without cache flushes."""

    values: FloatArray  # (op, time bin)
    mean: float
    peak: float


def make_series(values: FloatArray) -> Series:
    total = values[:CACHE_FLUSH].sum(axis=0)
    return Series(values, float(total.mean()), float(total.max()))


def query_timed(
    capture: OpenedRows, timeline: Timeline, query: str, parameters: dict[str, object] | None = None
) -> DuckDBPyConnection:
    """Runs `query` over `timed`: the rows of the window with times in ns from its begin."""
    window: dict[str, object] = {
        "begin": timeline.begin_ns,
        "last": timeline.length_ns - 1,
        "width": timeline.width_ns,
    }
    return capture.sql(_TIMED + query, window | (parameters or {}))


def with_device_rows(capture: OpenedRows, devices: Devices) -> tuple[str, dict[str, object]]:
    """A SQL table, `timed` with `device_row`, and its parameters.

    That is the device's place among those shown, or behind them.
    """
    if devices.count == 1:
        return "(SELECT *, 0 AS device_row FROM timed)", {}
    rows = (
        f"(SELECT timed.*, coalesce(row, {len(devices.shown)}) AS device_row FROM timed LEFT JOIN"
        " (SELECT unnest($devices::VARCHAR[]) AS shown, unnest(range(len($devices))) AS row)"
        f" ON {device_sql(capture)} IS NOT DISTINCT FROM shown)"
    )
    return rows, {"devices": list(devices.shown)}


def add_up(shape: tuple[int, ...], keys: tuple[Numbers, ...], amounts: FloatArray) -> FloatArray:
    """An array of `shape` with every amount added at its key."""
    places = tuple(key.astype(np.int64) for key in keys)
    try:
        cells = np.ravel_multi_index(places, shape)
    except ValueError as error:
        # DuckDB computes with what the file says of its least and greatest values.
        raise IorecError(
            "cannot draw the capture: the file is damaged: its statistics are wrong",
            "get a fresh copy of the file, or record again",
        ) from error
    sums = np.bincount(cells, amounts, prod(shape)).astype(np.float64, copy=False)
    return sums.reshape(shape)
