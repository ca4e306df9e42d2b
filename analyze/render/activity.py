# SPDX-License-Identifier: GPL-2.0-only
"""Renders what groups did in a short time as a table."""

from collections.abc import Callable
from dataclasses import replace

from analyze.activity import Activity
from analyze.groupings import BUSY
from analyze.groups import Group
from analyze.render.groups import key_columns
from analyze.render.table import TOO_LOW, Column, fit_columns, format_columns, shorten
from analyze.units import (
    format_count,
    format_duration,
    format_percent,
    format_rate,
    format_throughput,
)

# Title, value, how early it is left out when there is little room, and the order that it gives.
_COLUMNS: tuple[tuple[str, Callable[[Activity, Group], str], int, str], ...] = (
    ("IOPS", lambda _, group: format_rate(group.ios_per_s), 0, "ios"),
    ("RATE", lambda _, group: format_throughput(group.bytes_per_s), 2, "bytes"),
    ("P50", lambda _, group: format_duration(group.latency.p50_ns), 6, "p50"),
    ("P99", lambda _, group: format_duration(group.latency.p99_ns), 1, "p99"),
    ("MAX", lambda _, group: format_duration(group.latency.max_ns), 4, "max"),
    ("IN FLIGHT", lambda activity, group: format_rate(activity.in_flight(group)), 5, "time"),
    ("BUSY", lambda activity, group: format_percent(activity.busy_share(group)), 3, BUSY),
    ("ERRORS", lambda _, group: format_count(group.errors), 0, "errors"),
)
# What is too low when I/Os were lost or left out.
_COUNTED = ("IOPS", "RATE", "IN FLIGHT", "BUSY", "ERRORS")
# The orders of the columns, by their titles.
SHOWN_SORTS = {title: sort for title, _, _, sort in _COLUMNS}


def activity_columns(activity: Activity, width: int, *, is_too_low: bool) -> list[Column]:
    """A row for each group and one for all, in the columns for which there is room.

    If counts are too low, their titles say so with a `≥`.
    """
    summary = activity.summary
    # Shorter than in a report: names are looked at again and again, all the numbers at once.
    longest = max(width // 4, 12)
    keys = [
        replace(
            column,
            cells=[
                *(shorten(cell, longest) for cell in column.cells),
                "" if place else "total",
            ],
        )
        for place, column in enumerate(key_columns(summary.key_columns, summary.groups))
    ]
    rows = [*summary.groups, summary.total]
    values = [
        Column(
            TOO_LOW * (is_too_low and title in _COUNTED) + title,
            [value(activity, group) for group in rows],
            rank if sort != summary.sort else 0,
        )
        for title, value, rank, sort in _COLUMNS
    ]
    return fit_columns([*keys, *values], width)


def activity_lines(activity: Activity, width: int, *, is_too_low: bool) -> list[str]:
    """The table as lines, with how many groups it leaves out above the last one, of all."""
    *lines, total = format_columns(activity_columns(activity, width, is_too_low=is_too_low))
    left_out = activity.summary.group_count - len(activity.summary.groups)
    return [*lines, *[f"({format_count(left_out)} more)"] * (left_out > 0), total]
