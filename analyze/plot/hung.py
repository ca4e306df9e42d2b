# SPDX-License-Identifier: GPL-2.0-only
"""The I/Os that did not complete, one by one."""

from dataclasses import dataclass

from analyze.opened import OpenedRows
from analyze.plot.bins import device_sql, query_timed
from analyze.plot.timeline import Timeline

_MOST_HUNG = 200  # a queue's worth; of more the oldest


@dataclass(frozen=True)
class HungIo:
    """An I/O that was in flight from `start_ns` after the begin of the window until its end."""

    device: str | None
    start_ns: int
    age_ns: int
    offset: int | None


def load_hung(capture: OpenedRows, timeline: Timeline) -> tuple[HungIo, ...]:
    """The oldest of them, oldest first."""
    rows = query_timed(
        capture,
        timeline,
        f"""
        SELECT {device_sql(capture)}, start_ns, busy_ns, "offset" FROM timed
        WHERE latency_ns IS NULL ORDER BY start_ns, "offset" LIMIT {_MOST_HUNG}
        """,
    ).fetchall()
    return tuple(HungIo(*row) for row in rows)
