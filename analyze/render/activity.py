# SPDX-License-Identifier: GPL-2.0-only
"""Renders what groups did in a short time as a table."""

from collections.abc import Callable
from dataclasses import replace

from analyze.activity import Activity
from analyze.column_names import TOO_LOW, column_name
from analyze.groups import Group
from analyze.render.groups import key_columns
from analyze.render.table import Column, fit_columns, format_columns
from analyze.units import (
    format_count,
    format_duration,
    format_percent,
    format_rate,
    format_throughput,
)

# Title, value, and how early it is left out when there is little room.
_COLUMNS: tuple[tuple[str, Callable[[Activity, Group], str], int], ...] = (
    ("IOPS", lambda _, group: format_rate(group.ios_per_s), 0),
    ("RATE", lambda _, group: format_throughput(group.bytes_per_s), 1),
    ("P50", lambda _, group: format_duration(group.latency.p50_ns), 6),
    ("P99", lambda _, group: format_duration(group.latency.p99_ns), 0),
    ("MAX", lambda _, group: format_duration(group.latency.max_ns), 4),
    ("IN FLIGHT", lambda activity, group: format_rate(activity.in_flight(group)), 5),
    ("BUSY", lambda activity, group: format_percent(activity.busy_share(group)), 3),
    ("ERRORS", lambda _, group: format_count(group.errors), 0),
)
# What is too low when I/Os were lost or left out.
_COUNTED = ("IOPS", "RATE", "IN FLIGHT", "BUSY", "ERRORS")
# The orders that the columns give.
SHOWN_SORTS = tuple(column_name(title) for title, _, _ in _COLUMNS)


def activity_columns(activity: Activity, width: int, *, is_too_low: bool) -> list[Column]:
    """A row for each group and one for all, in the columns for which there is room.

    If counts are too low, their titles say so with a `≥`.
    """
    summary = activity.summary
    keys = [
        replace(column, cells=[*column.cells, "" if place else "total"])
        for place, column in enumerate(key_columns(summary.key_columns, summary.groups))
    ]
    rows = [*summary.groups, summary.total]
    values = [
        Column(
            TOO_LOW * (is_too_low and title in _COUNTED) + title,
            [value(activity, group) for group in rows],
            rank if column_name(title) != summary.sort else 0,
        )
        for title, value, rank in _COLUMNS
    ]
    return fit_columns([*keys, *values], width)


def activity_lines(activity: Activity, width: int, *, is_too_low: bool) -> list[str]:
    """The table as lines, with how many groups it leaves out above the last one, of all."""
    *lines, total = format_columns(activity_columns(activity, width, is_too_low=is_too_low))
    left_out = activity.summary.group_count - len(activity.summary.groups)
    return [*lines, *[f"({format_count(left_out)} more)"] * (left_out > 0), total]
