# SPDX-License-Identifier: GPL-2.0-only
"""Renders what a recording ends with as text."""

from analyze.escape import escape_for_terminal
from analyze.finding_facts import process_name
from analyze.groups import Group
from analyze.highlights import Highlights
from analyze.render.groups import format_key
from analyze.render.table import wrap_units
from analyze.units import format_duration, format_percent

_MOST_LINES = 2  # of a sentence


def highlight_lines(highlights: Highlights, width: int) -> list[str]:
    """Five lines at most."""
    processes = ", ".join(map(_process, highlights.processes))
    lines = _wrapped(f"I/O time: {processes}", width)
    if (slowest := highlights.slowest) is not None:
        device = format_key("device", slowest.key["device"])
        lines.append(f"slowest device: {device}, p99 {format_duration(slowest.latency.p99_ns)}")
    if highlights.findings:
        count = len(highlights.findings)
        place = f" (1 of {count})" * (count > 1)
        lines += _wrapped(f"stands out{place}: {highlights.findings[0].text}", width)
    return lines


def _process(group: Group) -> str:
    pid, name = group.key["pid"], group.key["process"]
    name = process_name(None if pid is None else int(pid), None if name is None else str(name))
    return f"{name} {format_percent(group.time_share)}"


def _wrapped(text: str, width: int) -> list[str]:
    escaped = escape_for_terminal(text)
    return wrap_units(
        escaped, width, subsequent_indent="  ", max_lines=_MOST_LINES, placeholder=" ..."
    )
