# SPDX-License-Identifier: GPL-2.0-only
"""Renders where the time of bios went as a table."""

from collections.abc import Callable, Sequence

from analyze.bio_times import BioTime
from analyze.escape import escape_for_terminal
from analyze.render.table import Column, pick_columns, table_lines
from analyze.units import format_count, format_duration, format_percent

_COLUMNS: tuple[tuple[str, Callable[[BioTime], str], int], ...] = (
    ("BIOS", lambda row: format_count(row.bios), 0),
    ("OWN REQUEST", lambda row: format_percent(row.own_share), 1),
    ("AVG", lambda row: format_duration(row.avg_ns), 2),
    ("BEFORE", lambda row: format_percent(row.before_share), 0),
    ("QUEUED", lambda row: format_percent(row.queue_share), 0),
    ("IN DEVICE", lambda row: format_percent(row.device_share), 0),
    ("AFTER", lambda row: format_percent(row.after_share), 0),
)


def bio_time_lines(rows: Sequence[BioTime], width: int, names: Sequence[str]) -> list[str]:
    """A line for each device and op, with the shares of the time."""
    if not rows:
        return ["no bio has become a request of its own"]
    values = [Column(title, [value(row) for row in rows], rank) for title, value, rank in _COLUMNS]
    columns = [
        Column("DEVICE", [escape_for_terminal(row.device) for row in rows], is_text=True),
        Column("OP", [escape_for_terminal(row.op) for row in rows], is_text=True),
        *(pick_columns(values, names) if names else values),
    ]
    return [
        "where the time of bios went: before the request, queued, in the device, after:",
        *table_lines(columns, width),
    ]
