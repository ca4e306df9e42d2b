# SPDX-License-Identifier: GPL-2.0-only
"""What was submitted when, and how long it took, from one scan."""

from dataclasses import dataclass

import numpy as np

from analyze.latency import (
    BUCKETS_PER_DOUBLING,
    PERCENTILES,
    FloatArray,
    Numbers,
    add_up_buckets,
    bucket_sql,
    buckets_of,
    edges_ns,
)
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
from analyze.plot.hung import HungIo, load_hung
from analyze.plot.percentiles import Steps, carried_percentiles_ns, percentiles_over_time
from analyze.plot.timeline import Timeline

CURVE_SHARES = 1 - 10.0 ** -np.linspace(0, 5, 501)  # 0 to 99.999 %, denser towards the end

_ROWS_PER_DOUBLING = 4  # keep a lone I/O visible
_FEWEST_ROWS = 12
_IN_FLIGHT = -(2**15)


@dataclass(frozen=True)
class OpLatency:
    """The I/Os of one op that succeeded."""

    op_index: int
    io_count: int
    size_bytes: float
    percentiles_ns: FloatArray  # PERCENTILES, NaN where the I/Os do not carry one
    longest_ns: float
    curve_ns: FloatArray  # at CURVE_SHARES: the latency of an I/O, nothing in between


@dataclass(frozen=True)
class Latencies:
    """I/Os that succeeded in logarithmic rows of latency; `by_op` is empty if none did.

    The rows reach to the ages of the hung ones, too.
    """

    edges_ns: FloatArray
    heat: FloatArray  # (row, time bin), number of I/Os, without cache flushes
    failed: FloatArray  # (row, time bin), number of I/Os
    hung: tuple[HungIo, ...]
    lines: Steps  # of the I/Os in `heat`
    histogram: FloatArray  # (op, row), number of I/Os
    by_op: tuple[OpLatency, ...]


@dataclass(frozen=True)
class Traffic:
    """Rates and latencies of one device by time of submission."""

    device: str | None
    iops: Series
    bytes_per_s: Series  # without discards, which move no data, and without failed I/Os
    latencies: Latencies


def load_traffic(capture: OpenedRows, timeline: Timeline, devices: Devices) -> tuple[Traffic, ...]:
    """Of each device that is shown, in the same rows of latency.

    An I/O in flight counts in the rates and has no latency.
    """
    rows, parameters = with_device_rows(capture, devices)
    cells = query_timed(
        capture,
        timeline,
        f"""
        SELECT device_row, op_index, has_failed, start_bin,
            coalesce({bucket_sql("latency_ns")}, ({_IN_FLIGHT})::SMALLINT) AS bucket,
            count(*) AS ios, sum(size_bytes)::DOUBLE AS bytes,
            coalesce(min(latency_ns), 0) AS low_ns, coalesce(max(latency_ns), 0) AS high_ns
        FROM {rows} GROUP BY ALL
        """,
        parameters,
    ).fetchnumpy()
    hung = load_hung(capture, timeline)
    completed = cells["bucket"] != _IN_FLIGHT
    ages = buckets_of(np.array([io.age_ns for io in hung]))
    shown_rows = _rows_to_show(np.concatenate((cells["bucket"][completed], ages)))
    return tuple(
        _traffic(
            device,
            {name: column[cells["device_row"] == row] for name, column in cells.items()},
            tuple(io for io in hung if io.device == device),
            shown_rows,
            timeline,
        )
        for row, device in enumerate(devices.shown)
    )


def _traffic(
    device: str | None, cells: Cells, hung: tuple[HungIo, ...], rows: range, timeline: Timeline
) -> Traffic:
    shape = (len(OPS), timeline.bin_count)
    keys = (cells["op_index"], cells["start_bin"])
    width_s = timeline.width_ns / 1e9
    moves_nothing = (cells["op_index"] == OPS.index("discard")) | cells["has_failed"]
    moved_bytes = np.where(moves_nothing, 0, cells["bytes"])
    completed = cells["bucket"] != _IN_FLIGHT
    return Traffic(
        device,
        make_series(add_up(shape, keys, cells["ios"]) / width_s),
        make_series(add_up(shape, keys, moved_bytes) / width_s),
        _latencies(
            {name: column[completed] for name, column in cells.items()}, hung, rows, timeline
        ),
    )


def _latencies(
    cells: Cells, hung: tuple[HungIo, ...], rows: range, timeline: Timeline
) -> Latencies:
    places = (_rows_of(cells["bucket"]) - rows.start, cells["start_bin"])
    shape = (len(rows), timeline.bin_count)
    has_failed = cells["has_failed"].astype(bool)
    in_heat = ~has_failed & (cells["op_index"] != CACHE_FLUSH)
    good = {name: column[~has_failed] for name, column in cells.items()}
    return Latencies(
        edges_ns=edges_ns(np.arange(rows.start, rows.stop + 1), _ROWS_PER_DOUBLING),
        heat=add_up(shape, places, np.where(in_heat, cells["ios"], 0)),
        failed=add_up(shape, places, np.where(has_failed, cells["ios"], 0)),
        hung=hung,
        lines=percentiles_over_time(
            {name: column[in_heat] for name, column in cells.items()}, timeline.bin_count
        ),
        histogram=add_up(
            (len(OPS), len(rows)), (good["op_index"], places[0][~has_failed]), good["ios"]
        ),
        by_op=tuple(_op_latency(int(op), good) for op in np.unique(good["op_index"])),
    )


def _rows_of(buckets: Numbers) -> Numbers:
    return buckets // (BUCKETS_PER_DOUBLING // _ROWS_PER_DOUBLING)


def _rows_to_show(buckets: Numbers) -> range:
    """The rows of all buckets with a margin of one, so many that one row is not all."""
    rows = _rows_of(buckets)
    low, high = (int(rows.min()), int(rows.max())) if rows.size else (0, 0)
    lacking = max(_FEWEST_ROWS - (high + 3 - low), 0)
    return range(low - 1 - lacking // 2, high + 2 + (lacking + 1) // 2)


def _op_latency(op_index: int, cells: Cells) -> OpLatency:
    columns = ("bucket", "ios", "low_ns", "high_ns")
    of_op = cells["op_index"] == op_index
    latencies = add_up_buckets(*(cells[name][of_op] for name in columns))
    return OpLatency(
        op_index=op_index,
        io_count=int(latencies.ios.sum()),
        size_bytes=float(cells["bytes"][of_op].sum()),
        percentiles_ns=carried_percentiles_ns(latencies, np.array([*PERCENTILES.values()])),
        longest_ns=float(latencies.high_ns[-1]),
        curve_ns=latencies.percentiles_ns(_shares_of_ios(int(latencies.ios.sum()))),
    )


def _shares_of_ios(io_count: int) -> FloatArray:
    """The places of I/Os in the order of latency, from 0 to 1, that reach CURVE_SHARES."""
    ranks: FloatArray = np.clip(np.ceil(CURVE_SHARES * io_count) - 1, 0, None)
    return ranks / max(io_count - 1, 1)
