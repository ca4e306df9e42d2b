# SPDX-License-Identifier: GPL-2.0-only
"""Renders single I/Os as tables: the slowest, those in flight and those that failed."""

from collections.abc import Sequence

from analyze.errnos import errno_name
from analyze.listed_ios import ListedIo, Listing
from analyze.render.table import (
    Column,
    cell_text,
    clock_note,
    fit_columns,
    format_columns,
    pick_columns,
    table_lines,
    unnamed_file_lines,
    wrap_units,
)
from analyze.report import Report
from analyze.units import (
    format_bytes,
    format_clock,
    format_count,
    format_duration,
    format_elapsed,
)

_MOST_KINDS = 3
_OFTEN_EMPTY = ("DEVICE", "OFFSET", "FILE")  # of calls, or of disks


def slowest_lines(report: Report, width: int, names: Sequence[str] = ()) -> list[str]:
    """A line for each, with as many columns as there is room for; errors if there are any."""
    rows = report.slowest or ()
    columns = [
        *_columns(rows, report.origin),
        Column("QUEUED", [format_duration(row.queue_ns) for row in rows], 1),
        Column("IN DEVICE", [format_duration(row.device_ns) for row in rows], 2),
        Column("LATENCY", [format_duration(row.latency_ns) for row in rows]),
    ]
    if names or any(row.errno for row in rows):
        columns.append(_errors(rows))
    if names or any(row.wait is not None for row in rows):
        columns.append(_waits(rows))
    if names or any(row.file is not None for row in rows):
        columns.append(Column("FILE", [cell_text(row.file) for row in rows], is_text=True))
    if not rows:
        return ["no I/Os have completed"]
    if names:
        columns = pick_columns(columns, names)
    lines = table_lines(columns, width)
    files = [row.file for row in rows] if "FILE" in lines[0].split() else []
    title = f"{format_count(len(rows))} slowest{clock_note(lines[0], report.origin)}:"
    return [title, *lines, *unnamed_file_lines(files, width)]


def in_flight_lines(report: Report, width: int) -> list[str]:
    """The oldest of the I/Os that did not complete."""
    rows = report.in_flight.shown
    last = [Column("AGE", [format_duration(row.age_ns) for row in rows])]
    if any(row.wait is not None for row in rows):
        last.append(_waits(rows))
    title = "in flight when recording stopped"
    return _listing_lines(title, report.in_flight, report.origin, last, width)


def failed_lines(report: Report, width: int) -> list[str]:
    """The first of the I/Os that failed."""
    rows = report.failed.shown
    latencies = Column("LATENCY", [format_duration(row.latency_ns) for row in rows], 5)
    kinds = [
        f"{format_count(kind.count)} {cell_text(kind.op)} {errno_name(kind.errno)}"
        for kind in report.failed.failures
    ]
    left_out = f" and {format_count(len(kinds) - _MOST_KINDS)} more" if kinds[_MOST_KINDS:] else ""
    title = f"failed ({', '.join(kinds[:_MOST_KINDS])}{left_out})"
    return _listing_lines(title, report.failed, report.origin, [latencies, _errors(rows)], width)


def _listing_lines(
    title: str, listing: Listing, origin_ns: int, last_columns: list[Column], width: int
) -> list[str]:
    if not listing.count:
        return []
    files = Column("FILE", [cell_text(row.file) for row in listing.shown], 4, is_text=True)
    columns = [
        column
        for column in (*_columns(listing.shown, origin_ns), *last_columns, files)
        if column.title not in _OFTEN_EMPTY or {*column.cells} != {cell_text(None)}
    ]
    left_out = listing.count - len(listing.shown)
    more = [f"({format_count(left_out)} more)"] if left_out > 0 else []
    lines = format_columns(fit_columns(columns, width))
    title = f"{format_count(listing.count)} {title}{clock_note(lines[0], origin_ns)}:"
    return [*wrap_units(title, width, subsequent_indent="  "), *lines, *more]


def _columns(rows: Sequence[ListedIo], origin_ns: int) -> list[Column]:
    """What every I/O has."""
    return [
        Column("START", [format_elapsed(row.time, origin_ns) for row in rows]),
        Column("UTC", [format_clock(row.time) for row in rows], 5),
        Column("PID", [cell_text(row.pid) for row in rows]),
        Column("PROCESS", [cell_text(row.process) for row in rows], is_text=True),
        Column("OP", [cell_text(row.op) for row in rows], is_text=True),
        Column("DEVICE", [cell_text(row.device) for row in rows], is_text=True),
        Column("OFFSET", [cell_text(row.offset) for row in rows], 3),
        Column("SIZE", [format_bytes(row.bytes) for row in rows], 4),
    ]


def _waits(rows: Sequence[ListedIo]) -> Column:
    return Column("WAIT", [cell_text(row.wait) for row in rows], is_text=True)


def _errors(rows: Sequence[ListedIo]) -> Column:
    return Column("ERROR", [errno_name(row.errno or 0) for row in rows], is_text=True)
