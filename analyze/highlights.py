# SPDX-License-Identifier: GPL-2.0-only
"""Gathers what a recording ends with: who waited most, for which device, and what stands out."""

from dataclasses import dataclass

from analyze.finding import Finding
from analyze.groups import Group
from analyze.opened import OpenedRows
from analyze.report import MOST_IOS_UNASKED, make_report
from analyze.summary import summarize

_MOST_PROCESSES = 3
# Of fewer I/Os, the p99 of a device would be that of one or two.
_LEAST_IOS = 100


@dataclass(frozen=True)
class Highlights:
    """The processes with most of the time in I/O, and the device with the largest p99 of latency.

    `slowest` is None if no device had enough I/Os.
    """

    processes: tuple[Group, ...]
    slowest: Group | None
    findings: tuple[Finding, ...]


def load_highlights(capture: OpenedRows) -> Highlights | None:
    """Reads the capture; None if it has no I/Os, or so many that somebody would have to wait."""
    if sum(file.row_count for file in capture.files) > MOST_IOS_UNASKED:
        return None
    report = make_report(capture, top=_MOST_PROCESSES)
    if not report.summary.total.ios:
        return None
    devices = summarize(capture, ("device",), sort="p99").groups
    return Highlights(
        processes=report.summary.groups,
        slowest=next((d for d in devices if d.ios >= _LEAST_IOS and d.key["device"]), None),
        findings=report.findings or (),
    )
