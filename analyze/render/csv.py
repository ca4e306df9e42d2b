"""Renders the groups of a report as CSV: base units, nothing rounded, unknown is empty."""

import csv
import io
from dataclasses import asdict
from typing import Any

from analyze.names import escape_for_terminal, neutralise_for_csv
from analyze.report import Report
from analyze.summary import Group


def render_csv(report: Report) -> str:
    """A header and a line for each group.

    Names are escaped as on a terminal, and one that a spreadsheet would run gets a `'` in front.
    """
    text = io.StringIO(newline="")
    columns = [*report.summary.key_columns, *_numbers(report.summary.total)]
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for group in report.summary.groups:
        writer.writerow({name: _cell(value) for name, value in _row(group).items()})
    return text.getvalue()


def _row(group: Group) -> dict[str, Any]:
    return group.key | _numbers(group)


def _numbers(group: Group) -> dict[str, Any]:
    numbers = asdict(group)
    latency = {f"latency_{name}": value for name, value in numbers["latency"].items()}
    nested = ("key", "latency", "histogram")
    return {name: value for name, value in numbers.items() if name not in nested} | latency


def _cell(value: Any) -> Any:
    return neutralise_for_csv(escape_for_terminal(value)) if isinstance(value, str) else value
