# SPDX-License-Identifier: GPL-2.0-only
"""Renders the groups of a report as CSV: base units, nothing rounded, unknown is empty."""

import csv
import io
from dataclasses import asdict
from typing import Any

from analyze.escape import escape_for_terminal, neutralise_for_csv
from analyze.report import Report
from analyze.summary import Group


def render_csv(report: Report) -> str:
    """A header and a line for each group.

    Names are escaped as on a terminal, and one that a spreadsheet would run gets a `'` in front.
    The column `kind` tells the groups of cache flushes, `cache_flush`, from those of I/Os, `io`.
    """
    text = io.StringIO(newline="")
    columns = [*report.summary.key_columns, "kind", *_numbers(report.summary.total)]
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    parts = {"io": report.summary.groups, "cache_flush": report.summary.cache_flushes}
    for kind, groups in parts.items():
        for group in groups:
            row = group.key | {"kind": kind} | _numbers(group)
            writer.writerow({name: _cell(value) for name, value in row.items()})
    return text.getvalue()


def _numbers(group: Group) -> dict[str, Any]:
    numbers = asdict(group)
    latency = {f"latency_{name}": value for name, value in numbers["latency"].items()}
    nested = ("key", "latency", "histogram")
    return {name: value for name, value in numbers.items() if name not in nested} | latency


def _cell(value: Any) -> Any:
    return neutralise_for_csv(escape_for_terminal(value)) if isinstance(value, str) else value
