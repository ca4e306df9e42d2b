"""Renders groups of I/Os as a table and as latency histograms."""

import textwrap
from collections.abc import Callable

from analyze.names import errno_name, escape_for_terminal
from analyze.render.table import Column, fit_columns, format_columns
from analyze.summary import Group, Summary
from analyze.units import (
    format_bytes,
    format_count,
    format_duration,
    format_percent,
    format_rate,
    format_throughput,
)

_STARS = 40
_KEY_TITLES = {"errno": "ERROR", "size_class_bytes": "SIZE FROM", "owner_by": "KNOWN BY"}
_NUMERIC_KEYS = ("pid", "tid", "cpu", "size_class_bytes")
# Title, value, and how early the column is left out when there is little room.
_COLUMNS: tuple[tuple[str, Callable[[Group], str], int], ...] = (
    ("I/OS", lambda group: format_count(group.ios), 0),
    ("READS", lambda group: format_count(group.reads), 14),
    ("WRITES", lambda group: format_count(group.writes), 13),
    ("READ", lambda group: format_bytes(group.read_bytes), 3),
    ("WRITTEN", lambda group: format_bytes(group.write_bytes), 4),
    ("IOPS", lambda group: format_rate(group.ios_per_s), 7),
    ("RATE", lambda group: format_throughput(group.bytes_per_s), 8),
    ("AVG", lambda group: format_duration(group.latency.avg_ns), 9),
    ("MIN", lambda group: format_duration(group.latency.min_ns), 16),
    ("P50", lambda group: format_duration(group.latency.p50_ns), 2),
    ("P95", lambda group: format_duration(group.latency.p95_ns), 12),
    ("P99", lambda group: format_duration(group.latency.p99_ns), 1),
    ("P99.9", lambda group: format_duration(group.latency.p999_ns), 10),
    ("MAX", lambda group: format_duration(group.latency.max_ns), 6),
    ("QUEUED", lambda group: format_percent(group.queue_share), 11),
    ("ERRORS", lambda group: format_count(group.errors), 15),
    ("TIME", lambda group: format_percent(group.time_share), 5),
)
# What is too low when I/Os were lost.
_COUNTED = frozenset({"I/OS", "READS", "WRITES", "READ", "WRITTEN", "IOPS", "RATE", "ERRORS"})


def group_lines(summary: Summary, width: int, *, is_too_low: bool) -> list[str]:
    """A line for each group and one for all, with as many columns as there is room for.

    If counts are too low, their titles say so with a `≥`.
    """
    if not summary.total.ios:
        return ["no I/Os were recorded"]
    keys = [_key_column(summary, key) for key in summary.key_columns]
    columns = [*keys, *_value_columns(summary, is_too_low=is_too_low)]
    shown = fit_columns(columns, width)
    *lines, total_line = format_columns(shown)
    left_out = summary.group_count - len(summary.groups)
    if left_out:
        lines.append(f"({format_count(left_out)} more: --top {summary.group_count})")
    lines.append(total_line)
    if len(shown) < len(columns):
        titles = [column.title for column in shown]
        missing = [column.title.lstrip("≥") for column in columns if column.title not in titles]
        lines += textwrap.wrap(f"(no room for {', '.join(missing)}: see --json or --csv)", width)
    return lines


def histogram_lines(group: Group) -> list[str]:
    """The latency of a group in powers of two of a microsecond, as biolatency prints it."""
    bins = group.histogram or ()
    peak = max((bin_.ios for bin_ in bins), default=0)
    title = ", ".join(f"{_key_title(key)} {format_key(key, v)}" for key, v in group.key.items())
    return [
        title or "total",
        f"     {'usecs':<19} : count     distribution",
        *(
            f"{bin_.low_ns // 1000:>10} -> {bin_.high_ns // 1000 - 1:<10} : {bin_.ios:<8}"
            f" |{'*' * (_STARS * bin_.ios // peak):<{_STARS}}|"
            for bin_ in bins
        ),
    ]


def format_key(column: str, value: str | int | None) -> str:
    """A value of a key column."""
    if value is None:
        return "-" if column in _NUMERIC_KEYS else "unknown"
    if column == "size_class_bytes":
        return format_bytes(int(value))
    if column == "errno":
        return errno_name(int(value))
    return escape_for_terminal(str(value)) or "none"


def _key_title(key: str) -> str:
    return _KEY_TITLES.get(key, key.upper())


def _key_column(summary: Summary, key: str) -> Column:
    is_first = key == summary.key_columns[0]
    values = [format_key(key, group.key[key]) for group in summary.groups]
    return Column(
        _key_title(key), [*values, "total" if is_first else ""], is_text=key not in _NUMERIC_KEYS
    )


def _value_columns(summary: Summary, *, is_too_low: bool) -> list[Column]:
    columns = []
    for title, value, rank in _COLUMNS:
        cells = [value(group) for group in (*summary.groups, summary.total)]
        sign = "≥" if is_too_low and title in _COUNTED else ""
        columns.append(Column(sign + title, cells, rank))
    return columns
