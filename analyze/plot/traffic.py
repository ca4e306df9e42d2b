# SPDX-License-Identifier: GPL-2.0-only
"""What was submitted when, and how long it took, from one scan."""

from dataclasses import dataclass

import numpy as np

from analyze.capture import Capture
from analyze.plot.bins import (
    CACHE_FLUSH,
    OPS,
    Cells,
    FloatArray,
    Series,
    add_up,
    make_series,
    query_timed,
)
from analyze.plot.timeline import Timeline

PERCENTILES = (0.5, 0.95, 0.99, 0.999)
CURVE_SHARES = 1 - 10.0 ** -np.linspace(0, 5, 501)  # 0 to 99.999 %, denser towards the end

# 128 buckets to the octave keep a percentile within 0.3 %; 4 rows keep a lone I/O visible.
_BUCKETS_PER_OCTAVE = 128
_ROWS_PER_OCTAVE = 4
_BUCKET_COUNT = 64 * _BUCKETS_PER_OCTAVE
_FEWEST_OCTAVES = 3
_IN_FLIGHT = -1


@dataclass(frozen=True)
class OpLatency:
    """The I/Os of one op that succeeded."""

    op_index: int
    io_count: int
    size_bytes: float
    percentiles_ns: FloatArray  # at PERCENTILES
    longest_ns: float
    curve_ns: FloatArray  # at CURVE_SHARES


@dataclass(frozen=True)
class Latencies:
    """I/Os that succeeded in logarithmic rows of latency; `by_op` is empty if none did."""

    edges_ns: FloatArray
    heat: FloatArray  # (row, time bin), number of I/Os, without cache flushes
    failed: FloatArray  # (row, time bin), number of I/Os
    histogram: FloatArray  # (op, row), number of I/Os
    by_op: tuple[OpLatency, ...]


@dataclass(frozen=True)
class Traffic:
    """Rates and latencies by time of submission."""

    iops: Series
    bytes_per_s: Series  # without discards, which move no data, and without failed I/Os
    latencies: Latencies


def load_traffic(capture: Capture, timeline: Timeline) -> Traffic:
    """An I/O in flight counts in the rates and has no latency."""
    cells = query_timed(
        capture,
        timeline,
        f"""
        SELECT op_index, has_failed, start_bin,
            CASE WHEN latency_ns > 0 THEN floor(log2(latency_ns) * {_BUCKETS_PER_OCTAVE})
                WHEN latency_ns IS NOT NULL THEN 0 ELSE {_IN_FLIGHT} END::SMALLINT AS bucket,
            count(*) AS ios, sum(size_bytes)::DOUBLE AS bytes,
            coalesce(max(latency_ns), 0) AS longest_ns
        FROM timed GROUP BY ALL
        """,
    ).fetchnumpy()
    shape = (len(OPS), timeline.bin_count)
    keys = (cells["op_index"], cells["start_bin"])
    width_s = timeline.width_ns / 1e9
    moves_nothing = (cells["op_index"] == OPS.index("discard")) | cells["has_failed"]
    moved_bytes = np.where(moves_nothing, 0, cells["bytes"])
    completed = cells["bucket"] != _IN_FLIGHT
    return Traffic(
        make_series(add_up(shape, keys, cells["ios"]) / width_s),
        make_series(add_up(shape, keys, moved_bytes) / width_s),
        _latencies({name: column[completed] for name, column in cells.items()}, timeline),
    )


def _latencies(cells: Cells, timeline: Timeline) -> Latencies:
    rows = cells["bucket"] // (_BUCKETS_PER_OCTAVE // _ROWS_PER_OCTAVE)
    first, row_count = _rows_to_show(rows)
    places = (rows - first, cells["start_bin"])
    shape = (row_count, timeline.bin_count)
    has_failed = cells["has_failed"].astype(bool)
    in_heat = ~has_failed & (cells["op_index"] != CACHE_FLUSH)
    good = {name: column[~has_failed] for name, column in cells.items()}
    return Latencies(
        edges_ns=2.0 ** (np.arange(first, first + row_count + 1) / _ROWS_PER_OCTAVE),
        heat=add_up(shape, places, np.where(in_heat, cells["ios"], 0)),
        failed=add_up(shape, places, np.where(has_failed, cells["ios"], 0)),
        histogram=add_up(
            (len(OPS), row_count), (good["op_index"], places[0][~has_failed]), good["ios"]
        ),
        by_op=tuple(_op_latency(int(op), good) for op in np.unique(good["op_index"])),
    )


def _rows_to_show(rows: FloatArray) -> tuple[int, int]:
    """The first row and how many: whole octaves with a margin, so that one row is not all."""
    low, high = (int(rows.min()), int(rows.max())) if rows.size else (0, 0)
    first_octave = low // _ROWS_PER_OCTAVE - 1
    octave_count = max(high // _ROWS_PER_OCTAVE + 2 - first_octave, _FEWEST_OCTAVES)
    return first_octave * _ROWS_PER_OCTAVE, octave_count * _ROWS_PER_OCTAVE


def _op_latency(op_index: int, cells: Cells) -> OpLatency:
    of_op = cells["op_index"] == op_index
    ios = add_up((_BUCKET_COUNT,), (cells["bucket"][of_op],), cells["ios"][of_op])
    buckets = np.flatnonzero(ios)
    longest_ns = max(float(cells["longest_ns"][of_op].max()), 1.0)
    middles_ns = 2.0 ** ((buckets + 0.5) / _BUCKETS_PER_OCTAVE)
    bucket_ns = np.minimum(middles_ns, longest_ns)
    return OpLatency(
        op_index=op_index,
        io_count=int(ios.sum()),
        size_bytes=float(cells["bytes"][of_op].sum()),
        percentiles_ns=_quantiles(np.array(PERCENTILES), bucket_ns, ios[buckets]),
        longest_ns=longest_ns,
        curve_ns=_quantiles(CURVE_SHARES, bucket_ns, ios[buckets]),
    )


def _quantiles(shares: FloatArray, bucket_ns: FloatArray, ios: FloatArray) -> FloatArray:
    """As numpy.percentile would give them if every I/O took its bucket's time."""
    up_to = np.cumsum(ios)
    first_and_last = np.column_stack((up_to - ios, up_to - 1)).ravel()
    positions = shares * (up_to[-1] - 1)
    quantiles: FloatArray = np.interp(positions, first_and_last, np.repeat(bucket_ns, 2))
    return quantiles
