# SPDX-License-Identifier: GPL-2.0-only
"""Who spent the most time in I/O: processes, or what else I/Os can be told apart by."""

from dataclasses import dataclass

import numpy as np

from analyze.latency import FloatArray
from analyze.opened import OpenedRows
from analyze.plot.bins import CACHE_FLUSH, OPS, query_timed
from analyze.plot.kinds import By
from analyze.plot.timeline import Timeline
from analyze.row_query import PROCESS_NAME

# The name and the number of an owner, in SQL.
_KEYS = {
    By.PROCESS: (PROCESS_NAME, "pid"),
    By.DEVICE: ("device", "NULL::INTEGER"),
    By.FILE: ("file", "NULL::INTEGER"),
    By.CGROUP: ("cgroup", "NULL::INTEGER"),
}


@dataclass(frozen=True)
class Owner:
    """A process, or a device, file or cgroup, which have no number.

    `host` is None if there is but one.
    """

    host: str | None
    name: str | None
    pid: int | None


@dataclass(frozen=True)
class OwnerTime:
    """The time in flight of one owner's I/Os, added up per op; the bytes are of those that
    succeeded.
    """

    owner: Owner
    io_count: int
    size_bytes: float
    busy_ns: FloatArray


@dataclass(frozen=True)
class Owners:
    """Those with the most time in I/O, longest first, out of `owner_count`."""

    by: By
    top: tuple[OwnerTime, ...]
    owner_count: int
    top_share: float  # of the time of all

    @property
    def left_out_count(self) -> int:
        return self.owner_count - len(self.top)


def key_sql(capture: OpenedRows, by: By) -> str:
    """The columns of an Owner."""
    name, pid = _KEYS[by]
    host = "host" if capture.has_several_hosts else "NULL::VARCHAR"
    return f"{host} AS machine, {name} AS name, {pid} AS number"


def load_owners(capture: OpenedRows, timeline: Timeline, by: By, limit: int) -> Owners:
    """An I/O that never completed counts until the end of the window, a cache flush not at all."""
    busy_by_op = ", ".join(
        f"coalesce(sum(busy_ns) FILTER (op_index = {index}), 0)" for index in range(len(OPS))
    )
    rows = query_timed(
        capture,
        timeline,
        f"""
        , parts AS (
            SELECT {key_sql(capture, by)}, op_index, count(*) AS ios,
                sum(CASE WHEN has_failed THEN 0 ELSE size_bytes END)::DOUBLE AS bytes,
                sum(busy_ns)::DOUBLE AS busy_ns
            FROM timed WHERE op_index <> {CACHE_FLUSH} GROUP BY ALL
        )
        SELECT machine, name, number, sum(ios)::BIGINT, sum(bytes), [{busy_by_op}],
            count(*) OVER (), sum(sum(busy_ns)) OVER ()
        FROM parts GROUP BY machine, name, number
        ORDER BY sum(busy_ns) DESC, machine, number, name LIMIT {limit}
        """,
    ).fetchall()
    top = tuple(
        OwnerTime(Owner(*key), ios, size_bytes, np.array(busy_ns))
        for *key, ios, size_bytes, busy_ns, _, _ in rows
    )
    owner_count, all_busy_ns = rows[0][-2:] if rows else (0, 0.0)
    shown_ns = sum(float(each.busy_ns.sum()) for each in top)
    return Owners(by, top, owner_count, shown_ns / all_busy_ns if all_busy_ns else 1.0)
