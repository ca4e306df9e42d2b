# SPDX-License-Identifier: GPL-2.0-only
"""Renders groups of I/Os as a table and as latency histograms."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from analyze.column_names import TOO_LOW, column_name
from analyze.errnos import errno_name
from analyze.escape import escape_for_terminal
from analyze.groups import MAX_GROUPS, Group
from analyze.intervals import Interval
from analyze.render.table import (
    Column,
    clock_note,
    fit_columns,
    format_columns,
    missing_lines,
    pick_columns,
    unnamed_file_lines,
    wrap_units,
)
from analyze.summary import Summary
from analyze.units import (
    format_bytes,
    format_clock,
    format_count,
    format_counted,
    format_duration,
    format_elapsed,
    format_percent,
    format_rate,
    format_throughput,
)

_STARS = 40
_CLOCK_RANK = 2
_KEY_TITLES = {
    "errno": "ERROR",
    "owner_by": "KNOWN BY",
    "ppid": "PARENT",
    "size_class_bytes": "SIZE FROM",
    "username": "USER",
}
_FILE_KEYS = ("file", "owner")
_NUMERIC_KEYS = ("pid", "tid", "ppid", "cpu", "size_class_bytes")
# Title, value, and how early the column is left out when there is little room.
_COLUMNS: tuple[tuple[str, Callable[[Group], str], int], ...] = (
    ("I/OS", lambda group: format_count(group.ios), 0),
    ("READS", lambda group: format_count(group.reads), 15),
    ("WRITES", lambda group: format_count(group.writes), 14),
    ("FLUSHES", lambda group: format_count(group.flushes), 13),
    ("READ", lambda group: format_bytes(group.read_bytes), 3),
    ("WRITTEN", lambda group: format_bytes(group.write_bytes), 2),
    ("DISCARDED", lambda group: format_bytes(group.discarded_bytes), 4),
    ("ZEROED", lambda group: format_bytes(group.zeroed_bytes), 4),
    ("IOPS", lambda group: format_rate(group.ios_per_s), 7),
    ("RATE", lambda group: format_throughput(group.bytes_per_s), 8),
    ("AVG", lambda group: format_duration(group.latency.avg_ns), 9),
    ("MIN", lambda group: format_duration(group.latency.min_ns), 16),
    ("P50", lambda group: format_duration(group.latency.p50_ns), 5),
    ("P95", lambda group: format_duration(group.latency.p95_ns), 12),
    ("P99", lambda group: format_duration(group.latency.p99_ns), 1),
    ("P99.9", lambda group: format_duration(group.latency.p999_ns), 10),
    ("MAX", lambda group: format_duration(group.latency.max_ns), 6),
    ("QUEUED", lambda group: format_percent(group.queue_share), 11),
    ("ERRORS", lambda group: format_count(group.errors), 0),
    ("TIME", lambda group: format_percent(group.time_share), 0),
)
_NOTHING = frozenset({"0", "0 B", "0.00", "0 B/s", "0.0%", "-"})
_FLUSH_COLUMNS = ("I/OS", "AVG", "P50", "P95", "P99", "MAX", "ERRORS")
# Shown where there is any.
_RARE: dict[str, Callable[[Group], int]] = {
    "FLUSHES": lambda group: group.flushes,
    "DISCARDED": lambda group: group.discarded_bytes,
    "ZEROED": lambda group: group.zeroed_bytes,
    "ERRORS": lambda group: group.errors,
}
# What is too low when I/Os were lost.
_COUNTED = frozenset(
    {
        *("I/OS", "READS", "WRITES", "FLUSHES", "READ", "WRITTEN", "DISCARDED", "ZEROED"),
        *("IOPS", "RATE", "ERRORS"),
    }
)


def group_lines(
    summary: Summary,
    origin_ns: int,
    width: int,
    names: Sequence[str] = (),
    *,
    is_too_low: bool,
) -> list[str]:
    """A line for each group and one for all, with the columns of these names if there are any.

    Else with those for which there is room: keys, I/Os, what the order is by, errors and time are
    always there, what is 0 or the same in all groups is left out first. If intervals were asked
    for, a line for each group of each, and one for an interval without I/Os; times count from
    `origin_ns`, the clock is beside them or said below. If counts are too low, their titles say so
    with a `≥`.
    """
    if not summary.total.ios:
        return [] if summary.cache_flushes else ["no I/Os were recorded"]
    parts: Sequence[Summary | Interval] = summary.intervals or (summary,)
    rows = [(part, group) for part in parts for group in part.groups or (part.total,)]
    groups = [group for _, group in rows]
    starts = [part.start for part, _ in rows if isinstance(part, Interval)]
    keys = key_columns(summary.key_columns, groups)
    if starts:
        elapsed = [format_elapsed(start, origin_ns) for start in starts]
        keys[:0] = (
            Column("START", elapsed),
            Column("UTC", [*map(format_clock, starts)], _CLOCK_RANK),
        )
    keys = [
        replace(column, cells=[*column.cells, "" if place else "total"])
        for place, column in enumerate(keys)
    ]
    values = _value_columns([*groups, summary.total], summary.sort, is_too_low=is_too_low)
    if names:
        columns = [*keys, *pick_columns(values, names)]
    else:
        columns = [*keys, *_without_rare(values, summary.total, summary.sort)]
    shown = fit_columns(columns, width)
    *lines, total_line = format_columns(shown)
    left_out = sum(part.group_count - len(part.groups) for part in parts)
    if left_out:
        most = min(max(part.group_count for part in parts), MAX_GROUPS)
        option = f": --top {most}" * (most > max(len(part.groups) for part in parts))
        lines.append(f"({format_count(left_out)} more{option})")
    lines.append(total_line)
    lines += filter(None, [clock_note(lines[0], origin_ns).strip()])
    files = [group.key[key] for group in groups for key in _FILE_KEYS if key in group.key]
    return [
        *lines,
        *missing_lines(columns, shown, width),
        *unnamed_file_lines(files, width),
    ]


def cache_flush_lines(summary: Summary, width: int) -> list[str]:
    """What devices flushed from their caches, and a line for each group if there are several."""
    total, groups = summary.cache_flush_total, summary.cache_flushes
    if total is None:
        return []
    latency = total.latency
    line = (
        f"{format_counted(total.ios, 'cache flush')} by devices, in no sum above:"
        f" p50 {format_duration(latency.p50_ns)}, p99 {format_duration(latency.p99_ns)},"
        f" max {format_duration(latency.max_ns)}"
    )
    lines = wrap_units(line, width, subsequent_indent="  ")
    if len(groups) == 1:
        return lines
    keys = key_columns(summary.key_columns, groups)
    values = _value_columns(groups, summary.sort, is_too_low=False)
    shown = [column for column in values if column.title in _FLUSH_COLUMNS]
    columns = [*keys, *_without_rare(shown, total, summary.sort)]
    columns = [replace(c, title="FLUSHED") if c.title == "I/OS" else c for c in columns]
    return [*lines, *format_columns(fit_columns(columns, width))]


def histogram_lines(group: Group, kind: str = "") -> list[str]:
    """The latency of a group in powers of two of a microsecond, as biolatency prints it.

    From the first to the last that is not empty. `kind` says what they are if not the I/Os.
    """
    bins = group.histogram or ()
    first = next((place for place, bin_ in enumerate(bins) if bin_.ios), 0)
    peak = max((bin_.ios for bin_ in bins), default=0)
    title = ", ".join(f"{_key_title(key)} {format_key(key, v)}" for key, v in group.key.items())
    return [
        kind + (title or "all I/Os"),
        f"     {'usecs':<19} : count     distribution",
        *(
            f"{bin_.low_ns // 1000:>10} -> {bin_.high_ns // 1000 - 1:<10} : {bin_.ios:<8}"
            f" |{'*' * (_STARS * bin_.ios // peak):<{_STARS}}|"
            for bin_ in bins[first:]
        ),
        f"     {'total':<19} : {sum(bin_.ios for bin_ in bins)}",
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


def key_columns(keys: Sequence[str], groups: Sequence[Group]) -> list[Column]:
    """The values of each key; that of no group in particular has none."""
    return [
        Column(
            _key_title(key),
            [format_key(key, group.key[key]) if group.key else "" for group in groups],
            is_text=key not in _NUMERIC_KEYS,
        )
        for key in keys
    ]


def _value_columns(groups: Sequence[Group], sort: str, *, is_too_low: bool) -> list[Column]:
    """The numbers of the groups, and of all of them in the last line."""
    columns = []
    for title, value, rank in _COLUMNS:
        cells = [value(group) for group in groups]
        if column_name(title) == sort:
            rank = 0
        elif rank and (_NOTHING.issuperset(cells) or (len(groups) > 2 and len({*cells[:-1]}) == 1)):
            rank += len(_COLUMNS)
        columns.append(Column(TOO_LOW * (is_too_low and title in _COUNTED) + title, cells, rank))
    return columns


def _without_rare(columns: Sequence[Column], total: Group, sort: str) -> list[Column]:
    """Those that do not only say that there was nothing of a kind, and that of the order."""
    return [
        column
        for column in columns
        if (count := _RARE.get(column.title.lstrip(TOO_LOW))) is None
        or count(total)
        or column_name(column.title) == sort
    ]
