# SPDX-License-Identifier: GPL-2.0-only
"""How many I/Os were in flight over time: of each device, and of each owner."""

from dataclasses import dataclass

import numpy as np

from analyze.latency import FloatArray
from analyze.opened import OpenedRows
from analyze.plot.bins import (
    CACHE_FLUSH,
    OPS,
    Cells,
    Devices,
    Series,
    add_up,
    make_series,
    query_timed,
    with_device_rows,
)
from analyze.plot.owners import Owners, key_sql
from analyze.plot.timeline import Timeline

_OWNER_COLUMNS = {"machine": "VARCHAR", "name": "VARCHAR", "number": "INTEGER"}


@dataclass(frozen=True)
class Depth:
    """Mean I/Os in flight per bin: the overlap of all I/Os with the bin over the bin's width.

    The sum over all bins, times the width, is the time that all I/Os spent inside the window.
    An I/O from before the window's begin is not among its rows, so not in the depth either.
    """

    by_device: tuple[Series, ...]
    by_owner: FloatArray  # (owner, time bin), the last row for all others; no cache flushes
    bytes_per_s_by_owner: FloatArray  # by time of submission, without what failed or moves nothing


def load_depth(capture: OpenedRows, timeline: Timeline, devices: Devices, owners: Owners) -> Depth:
    rows, parameters = with_device_rows(capture, devices)
    columns = ", ".join(
        f"unnest(${column}::{kind}[]) AS {column}" for column, kind in _OWNER_COLUMNS.items()
    )
    same = " AND ".join(f"key.{name} IS NOT DISTINCT FROM top.{name}" for name in _OWNER_COLUMNS)
    keys = [(each.owner.host, each.owner.name, each.owner.pid) for each in owners.top]
    parameters |= {
        column: [key[place] for key in keys] for place, column in enumerate(_OWNER_COLUMNS)
    }
    cells = query_timed(
        capture,
        timeline,
        f"""
        SELECT op_index, device_row, coalesce(owner_row, {len(keys)}) AS owner_row,
            start_bin, stop_bin, count(*) AS ios,
            sum(CASE WHEN has_failed THEN 0 ELSE size_bytes END)::DOUBLE AS bytes,
            sum(start_ns)::DOUBLE AS start_ns, sum(stop_ns)::DOUBLE AS stop_ns
        FROM (SELECT *, {key_sql(capture, owners.by)} FROM {rows}) AS key LEFT JOIN (
            SELECT {columns}, unnest(range(len($name))) AS owner_row
        ) AS top ON {same}
        GROUP BY ALL
        """,
        parameters,
    ).fetchnumpy()
    by_op = [
        _mean_in_flight(_only(cells, cells["device_row"] == row), "op_index", len(OPS), timeline)
        for row in range(len(devices.shown))
    ]
    of_owners = _only(cells, cells["op_index"] != CACHE_FLUSH)
    moving = _only(of_owners, of_owners["op_index"] != OPS.index("discard"))
    owner_shape = (len(keys) + 1, timeline.bin_count)
    moved = add_up(owner_shape, (moving["owner_row"], moving["start_bin"]), moving["bytes"])
    return Depth(
        tuple(map(make_series, by_op)),
        _mean_in_flight(of_owners, "owner_row", len(keys) + 1, timeline),
        moved / (timeline.width_ns / 1e9),
    )


def _only(cells: Cells, chosen: FloatArray) -> Cells:
    return {name: column[chosen] for name, column in cells.items()}


def _mean_in_flight(cells: Cells, key: str, count: int, timeline: Timeline) -> FloatArray:
    """(key, time bin)."""
    since_start, since_stop = (
        _since(cells, event, key, count, timeline) for event in ("start", "stop")
    )
    return np.maximum(since_start - since_stop, 0)


def _since(cells: Cells, event: str, key: str, count: int, timeline: Timeline) -> FloatArray:
    """Mean number of I/Os for which the event has happened: partly in its bin, then wholly."""
    shape = (count, timeline.bin_count)
    keys = (cells[key], cells[f"{event}_bin"])
    ios = add_up(shape, keys, cells["ios"])
    bins_before = ios * np.arange(timeline.bin_count)
    into_bin = add_up(shape, keys, cells[f"{event}_ns"]) / timeline.width_ns - bins_before
    since: FloatArray = np.cumsum(ios, axis=1) - into_bin
    return since
