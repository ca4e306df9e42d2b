# SPDX-License-Identifier: GPL-2.0-only
"""Renders the groups of a report as CSV: base units, nothing rounded, unknown is empty."""

import csv
import io
from collections.abc import Iterable
from dataclasses import asdict, fields
from typing import Any

from analyze.bio_times import BioTime
from analyze.escape import escape_for_terminal, neutralise_for_csv
from analyze.listed_ios import ListedIo
from analyze.load import Load
from analyze.report import Report
from analyze.units import format_rfc3339


def render_csv(report: Report) -> str:
    """A header and a line for each group; or for each device or I/O, if they were asked for.

    Groups are those of Summary.rows(). Names are escaped as on a terminal, and one that a
    spreadsheet would run gets a `'` in front.
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
    return [*report.summary.column_types], map(_group, report.summary.rows())


def _io(row: ListedIo) -> dict[str, Any]:
    return asdict(row) | {"time": None if row.time is None else format_rfc3339(row.time)}


def _group(row: dict[str, Any]) -> dict[str, Any]:
    return row | {"start": format_rfc3339(row["start"])} if "start" in row else row


def _cell(value: Any) -> Any:
    return neutralise_for_csv(escape_for_terminal(value)) if isinstance(value, str) else value
