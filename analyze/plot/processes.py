# SPDX-License-Identifier: GPL-2.0-only
"""Which processes spent the most time in I/O."""

from dataclasses import dataclass

import numpy as np

from analyze.latency import FloatArray
from analyze.opened import OpenedRows
from analyze.plot.bins import CACHE_FLUSH, OPS, query_timed
from analyze.plot.timeline import Timeline


@dataclass(frozen=True)
class ProcessTime:
    """The time in flight of one process's I/Os, added up per op; the bytes are of those that
    succeeded. `host` is None if there is but one.
    """

    host: str | None
    comm: str | None
    pid: int | None
    io_count: int
    size_bytes: float
    busy_ns: FloatArray


@dataclass(frozen=True)
class Processes:
    """The processes with the most time in I/O, longest first, out of `process_count`."""

    top: tuple[ProcessTime, ...]
    process_count: int
    top_share: float  # of the time of all processes


def load_processes(capture: OpenedRows, timeline: Timeline, limit: int) -> Processes:
    """An I/O that never completed counts until the end of the window, a cache flush not at all."""
    busy_by_op = ", ".join(
        f"coalesce(sum(busy_ns) FILTER (op_index = {index}), 0)" for index in range(len(OPS))
    )
    host = "host" if capture.has_several_hosts else "NULL::VARCHAR"
    rows = query_timed(
        capture,
        timeline,
        f"""
        , parts AS (
            SELECT {host} AS machine, comm, pid, op_index, count(*) AS ios,
                sum(CASE WHEN has_failed THEN 0 ELSE size_bytes END)::DOUBLE AS bytes,
                sum(busy_ns)::DOUBLE AS busy_ns
            FROM timed WHERE op_index <> {CACHE_FLUSH} GROUP BY ALL
        )
        SELECT machine, comm, pid, sum(ios)::BIGINT, sum(bytes), [{busy_by_op}],
            count(*) OVER (), sum(sum(busy_ns)) OVER ()
        FROM parts GROUP BY machine, comm, pid
        ORDER BY sum(busy_ns) DESC, machine, pid, comm LIMIT {limit}
        """,
    ).fetchall()
    top = tuple(
        ProcessTime(host, comm, pid, ios, size_bytes, np.array(busy_ns))
        for host, comm, pid, ios, size_bytes, busy_ns, *_ in rows
    )
    process_count, all_busy_ns = rows[0][-2:] if rows else (0, 0.0)
    shown_ns = sum(float(process.busy_ns.sum()) for process in top)
    return Processes(top, process_count, shown_ns / all_busy_ns if all_busy_ns else 1.0)
