# SPDX-License-Identifier: GPL-2.0-only
"""Streams rows in time order, in memory that does not grow with their number."""

from collections.abc import Iterator, Sequence

import pyarrow as pa
from duckdb import DuckDBPyConnection

from analyze.row_query import identifier, moment

# Rows are sorted slice by slice: a file's row groups overlap a little, files among each other as
# they please. What a larger slice, of rows of one moment, has no memory for is sorted on disk.
_ROWS_PER_SLICE = 1 << 18
_MOMENTS = 1 << 16  # into which the time is divided to find where slices end


def stream_batches(
    connection: DuckDBPyConnection,
    columns: Sequence[str],
    rows: int,
    *,
    in_slices: bool,
    table: str = "io",
    rows_per_slice: int = _ROWS_PER_SLICE,
) -> Iterator[pa.RecordBatch]:
    """The rows of `io` by time, in batches of `rows` at most; those of one time in any order.

    `in_slices` is for files that can be read in part; `table` is another view with a time,
    and smaller slices take less memory.
    """
    names = ", ".join(map(identifier, columns))
    for condition in _slices(connection, table, rows_per_slice) if in_slices else ["true"]:
        query = f"SELECT {names} FROM {table} WHERE {condition} ORDER BY time"
        for batch in connection.sql(query).to_arrow_reader(rows):
            yield from (batch.slice(start, rows) for start in range(0, batch.num_rows, rows))


def _slices(connection: DuckDBPyConnection, table: str, rows_per_slice: int) -> Iterator[str]:
    """SQL conditions; each holds for some rows that follow those of the one before."""
    counts = connection.execute(
        f"""
        WITH times AS (SELECT epoch_ns(time) AS time_ns FROM {table}),
        span AS (SELECT min(time_ns)::DOUBLE AS first, max(time_ns)::DOUBLE AS last FROM times)
        SELECT min(time_ns), count(*) FROM times, span
        GROUP BY floor((time_ns - first) / (last - first + 1) * {_MOMENTS}) ORDER BY 1
        """
    ).fetchall()
    begin, in_slice = "time IS NOT NULL", 0
    for time_ns, count in counts:
        if in_slice and time_ns is not None and in_slice + count > rows_per_slice:
            yield f"{begin} AND time < {moment(time_ns)}"
            begin, in_slice = f"time >= {moment(time_ns)}", 0
        in_slice += count
    yield begin
    yield "time IS NULL"
