# SPDX-License-Identifier: GPL-2.0-only
"""Sums up a short time for those who look on: groups as in a report, and how busy each was."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from analyze.groupings import BUSY, IN_FLIGHT
from analyze.groups import Group
from analyze.opened import OpenedRows
from analyze.summary import Summary, summarize
from analyze.summary_query import key_sql
from analyze.units import ratio


@dataclass(frozen=True)
class Activity:
    """The I/Os that ended in a window.

    `busy_ns`, by the values of the key: the time in the window during which an I/O of the group was
    in flight. One that has not ended is in no number yet.
    """

    summary: Summary
    busy_ns: Mapping[tuple[Any, ...], int]

    def busy_share(self, group: Group) -> float | None:
        """How much of the window that is; of the total, how long there was any I/O."""
        return ratio(self.busy_ns.get(_key(group), 0), self.summary.duration_ns)

    def in_flight(self, group: Group) -> float | None:
        """How many I/Os were in flight on average: by Little's law the time of all in a second."""
        return ratio(group.time_ns, self.summary.duration_ns)


def load_activity(
    rows: OpenedRows, by: tuple[str, ...], sort: str = IN_FLIGHT, top: int | None = None
) -> Activity:
    """Raises IorecError as summarize does."""
    # The more in flight the more time; and no I/O makes its group busy for longer than it took.
    is_by_time = sort in (BUSY, IN_FLIGHT)
    summary = summarize(rows, by, sort="time" if is_by_time else sort, top=top)
    busy_ns: dict[tuple[Any, ...], int] = {}
    for keys in {(), summary.key_columns}:
        for *key, time_ns in rows.sql(_busy_query(keys, rows.window.begin_ns)).fetchall():
            busy_ns[tuple(key)] = time_ns
    groups = summary.groups
    if sort == BUSY:
        groups = tuple(sorted(groups, key=lambda group: -busy_ns.get(_key(group), 0)))
    return Activity(replace(summary, groups=groups, sort=sort), busy_ns)


def _key(group: Group) -> tuple[Any, ...]:
    return tuple(group.key.values())


def _busy_query(keys: tuple[str, ...], begin_ns: int) -> str:
    """The time since `begin_ns` with an I/O in flight, by key: what each adds to those before."""
    names = "".join(f"{key}, " for key in keys)
    values = "".join(f"{key_sql(key)} AS {key}, " for key in keys)
    partition = f"PARTITION BY {', '.join(keys)}" if keys else ""
    return f"""
        WITH spans AS (
            SELECT {values} greatest(epoch_ns(time), {begin_ns}) AS start_ns,
                epoch_ns(time) + latency_ns AS stop_ns
            FROM io WHERE latency_ns IS NOT NULL AND op IS DISTINCT FROM 'cache_flush'
        ), added AS (
            SELECT *, max(stop_ns) OVER (
                {partition} ORDER BY start_ns ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
            ) AS reached_ns FROM spans
        )
        SELECT {names} coalesce(sum(
            greatest(stop_ns - greatest(start_ns, coalesce(reached_ns, start_ns)), 0)
        ), 0)::BIGINT FROM added {f"GROUP BY {', '.join(keys)}" if keys else ""}
    """
