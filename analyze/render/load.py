# SPDX-License-Identifier: GPL-2.0-only
"""Renders how busy devices were as a table."""

from collections.abc import Callable, Sequence

from analyze.column_names import TOO_LOW, column_name
from analyze.escape import escape_for_terminal
from analyze.load import Load, Loads
from analyze.render.table import Column, pick_columns, table_lines
from analyze.units import (
    format_bytes,
    format_count,
    format_duration,
    format_percent,
    format_rate,
)

# Title, value, and how early the column is left out when there is little room.
_COLUMNS: tuple[tuple[str, Callable[[Load], str], int], ...] = (
    ("I/OS", lambda load: format_count(load.ios), 0),
    ("BUSY", lambda load: format_percent(load.busy_share), 0),
    ("IN FLIGHT", lambda load: format_rate(load.mean_in_flight), 1),
    ("MOST", lambda load: format_count(load.max_in_flight), 2),
    ("QUEUE P50", lambda load: format_duration(load.queue_p50_ns), 6),
    ("QUEUE P95", lambda load: format_duration(load.queue_p95_ns), 7),
    ("QUEUE P99", lambda load: format_duration(load.queue_p99_ns), 4),
    ("QUEUE MAX", lambda load: format_duration(load.queue_max_ns), 8),
    ("SIZE", lambda load: format_bytes(load.mean_bytes), 3),
    ("SEQUENTIAL", lambda load: format_percent(load.sequential_share), 3),
    ("REREAD", lambda load: format_percent(load.reread_share), 5),
)
# What is too low when I/Os were lost.
_COUNTED = ("I/OS", "BUSY", "IN FLIGHT", "MOST")


def load_lines(
    loads: Loads, width: int, picked: Sequence[str] = (), *, is_too_low: bool
) -> list[str]:
    """A line for each device, and one for all if they are several."""
    if not loads.devices:
        return ["no I/Os were recorded"]
    rows = [*loads.devices, loads.total] if len(loads.devices) > 1 else loads.devices
    names = [escape_for_terminal(load.device or "unknown") for load in loads.devices]
    values = [
        Column(
            TOO_LOW * (is_too_low and title in _COUNTED) + title,
            [value(load) for load in rows],
            rank if column_name(title) != loads.sort else 0,
        )
        for title, value, rank in _COLUMNS
    ]
    columns = [
        Column("DEVICE", [*names, "total"][: len(rows)], is_text=True),
        *(pick_columns(values, picked) if picked else values),
    ]
    return table_lines(columns, width)
