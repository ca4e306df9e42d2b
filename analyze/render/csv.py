# SPDX-License-Identifier: GPL-2.0-only
"""Renders the groups of a report as CSV: base units, nothing rounded, unknown is empty."""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, fields
from typing import Any

from analyze.bio_times import BioTime
from analyze.escape import escape_for_terminal, neutralise_for_csv
from analyze.groups import Group
from analyze.intervals import Interval
from analyze.listed_ios import ListedIo
from analyze.load import Load
from analyze.report import Report
from analyze.summary import Summary
from analyze.units import format_rfc3339


def render_csv(report: Report) -> str:
    """A header and a line for each group; or for each device or I/O, if they were asked for.

    Of intervals there is a line for each group of each, and one without a key for an interval
    without I/Os. Names are escaped as on a terminal, and one that a spreadsheet would run gets a
    `'` in front. The column `kind` tells the groups of cache flushes, `cache_flush`, from those of
    I/Os, `io`.
    """
    text = io.StringIO(newline="")
    columns, rows = _table(report)
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _cell(row.get(name)) for name in columns})
    return text.getvalue()


def _table(report: Report) -> tuple[list[str], Iterable[dict[str, Any]]]:
    """The columns and the rows."""
    if report.slowest is not None:
        names = [field.name for field in fields(ListedIo) if field.name != "age_ns"]
        return names, map(_io, report.slowest)
    if report.bio_times is not None:
        return [field.name for field in fields(BioTime)], map(asdict, report.bio_times)
    if report.loads is not None:
        return [field.name for field in fields(Load)], map(asdict, report.loads.devices)
    start = ["start"] * bool(report.summary.intervals)
    columns = [*start, *report.summary.key_columns, "kind", *_numbers(report.summary.total)]
    return columns, _rows(report.summary)


def _io(row: ListedIo) -> dict[str, Any]:
    return asdict(row) | {"time": None if row.time is None else format_rfc3339(row.time)}


def _rows(summary: Summary) -> Iterator[dict[str, Any]]:
    parts: Sequence[Summary | Interval] = summary.intervals or (summary,)
    for part in parts:
        start, groups = {}, part.groups
        if isinstance(part, Interval):
            start, groups = {"start": format_rfc3339(part.start)}, part.groups or (part.total,)
        for kind, found in (("io", groups), ("cache_flush", part.cache_flushes)):
            for group in found:
                yield start | group.key | {"kind": kind} | _numbers(group)


def _numbers(group: Group) -> dict[str, Any]:
    numbers = asdict(group)
    latency = {f"latency_{name}": value for name, value in numbers["latency"].items()}
    nested = ("key", "latency", "histogram")
    return {name: value for name, value in numbers.items() if name not in nested} | latency


def _cell(value: Any) -> Any:
    return neutralise_for_csv(escape_for_terminal(value)) if isinstance(value, str) else value
