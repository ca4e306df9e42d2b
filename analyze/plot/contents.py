# SPDX-License-Identifier: GPL-2.0-only
"""What a capture holds, in the few facts that titles, legends and messages need."""

from dataclasses import dataclass

from analyze.opened import OpenedRows
from analyze.plot.bins import CACHE_FLUSH, OP_INDEX, Devices, device_sql, query_timed
from analyze.plot.timeline import Timeline
from analyze.row_query import PROCESS_NAME

_MOST_DEVICES = 12


@dataclass(frozen=True)
class Contents:
    """The busiest devices, and the indices of the OPS that occur."""

    io_count: int
    cache_flush_count: int  # not among `io_count`
    failed_count: int
    hung_count: int  # that did not complete
    ops: tuple[int, ...]
    devices: Devices

    @property
    def row_count(self) -> int:
        """I/Os and cache flushes."""
        return self.io_count + self.cache_flush_count


@dataclass(frozen=True)
class OnlyIo:
    """The one row of a capture."""

    time_ns: int
    op: str | None
    device: str | None
    offset: int | None
    size_bytes: int | None
    latency_ns: int | None
    errno: int | None
    process: str | None
    pid: int | None


def load_contents(capture: OpenedRows) -> Contents:
    # DuckDB groups fastest by a column as it is.
    ops = capture.sql(
        f"SELECT {OP_INDEX} AS op_index, sum(ios)::BIGINT, sum(failed)::BIGINT FROM"
        " (SELECT op, count(*) AS ios, count(*) FILTER (errno <> 0) AS failed FROM io GROUP BY op)"
        " GROUP BY op_index ORDER BY op_index"
    ).fetchall()
    devices = capture.sql(
        f"SELECT {device_sql(capture)} AS name, count(*) OVER () FROM io GROUP BY name"
        f" ORDER BY sum(coalesce(latency_ns, {capture.covered_ns})) DESC, name"
        f" LIMIT {_MOST_DEVICES}"
    ).fetchall()
    hung = capture.sql("SELECT count(*) FROM io WHERE latency_ns IS NULL").fetchall()
    return Contents(
        io_count=sum(count for op_index, count, _ in ops if op_index != CACHE_FLUSH),
        cache_flush_count=sum(count for op_index, count, _ in ops if op_index == CACHE_FLUSH),
        failed_count=sum(failed for *_, failed in ops),
        hung_count=hung[0][0],
        ops=tuple(op_index for op_index, *_ in ops),
        devices=Devices(tuple(device for device, _ in devices), devices[0][1] if devices else 0),
    )


def load_only_io(capture: OpenedRows, timeline: Timeline) -> OnlyIo:
    """To be called if the capture holds one row."""
    [row] = query_timed(
        capture,
        timeline,
        f"""
        SELECT $begin + start_ns, op, {device_sql(capture)}, "offset", bytes, latency_ns, errno,
            {PROCESS_NAME}, pid
        FROM timed
        """,
    ).fetchall()
    return OnlyIo(*row)
