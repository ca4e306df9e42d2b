# SPDX-License-Identifier: GPL-2.0-only
"""Says what an opened capture is, in a line and in a small table for notebooks."""

import html
from collections.abc import Iterable, Sequence

from analyze.completeness import Completeness
from analyze.escape import escape_for_terminal
from analyze.selection import Selection, recorded_span
from analyze.sources import CaptureFile
from analyze.units import format_counted, format_duration, format_time
from analyze.verdict import format_completeness, format_recorded

_STATES = {True: "complete", False: "INCOMPLETE", None: "no account"}


def opened_line(
    files: Sequence[CaptureFile], selection: Selection, completeness: Completeness
) -> str:
    """`<Capture run.parquet: 12,345 I/Os, 10.0 s on db1, complete>`, of the whole recordings.

    What they are narrowed to is told behind it.
    """
    narrowed = f"; only {selection}" * (selection != Selection())
    return (
        f"<Capture {_name(files)}: {_recorded(files, completeness)}, {_length(files)} on"
        f" {_host(files)}, {_STATES[completeness.is_complete]}{narrowed}>"
    )


def opened_table(
    files: Sequence[CaptureFile], selection: Selection, completeness: Completeness
) -> str:
    """The same in HTML, with the whole verdict."""
    facts = {
        "capture": _name(files),
        "holds": _recorded(files, completeness),
        "recorded": f"{format_time(recorded_span(files).begin_ns)}, {_length(files)}",
        "host": _host(files),
        "only": str(selection),
        "verdict": format_completeness(completeness),
    }
    rows = "".join(
        f"<tr><th>{label}</th><td>{html.escape(fact)}</td></tr>"
        for label, fact in facts.items()
        if fact
    )
    return f"<table>{rows}</table>"


def _name(files: Sequence[CaptureFile]) -> str:
    return _one_or_count((file.path.name for file in files), "file")


def _host(files: Sequence[CaptureFile]) -> str:
    return _one_or_count({file.host for file in files}, "host")


def _recorded(files: Sequence[CaptureFile], completeness: Completeness) -> str:
    if all(file.metadata.counts for file in files):
        return format_recorded(completeness)
    return format_counted(sum(file.row_count for file in files), "row")


def _length(files: Sequence[CaptureFile]) -> str:
    """From the start of the first recording to the stop of the last one."""
    begin_ns, end_ns = recorded_span(files)
    return format_duration(end_ns - begin_ns)


def _one_or_count(names: Iterable[str], noun: str) -> str:
    found = [*names]
    return escape_for_terminal(found[0]) if len(found) == 1 else format_counted(len(found), noun)
