# SPDX-License-Identifier: GPL-2.0-only
"""The viewer of `iorec top --batch`: a table for each interval."""

import json
import sys
from contextlib import ExitStack
from itertools import islice

from analyze.database import open_database
from analyze.render.activity import activity_lines
from analyze.typed_json import parse_object
from analyze.units import format_counted, format_duration, format_rfc3339
from iorec.live.form import TopForm
from iorec.live.slices import Slice, Summer, follow_slices
from iorec.live.viewer import printing

_MILLISECONDS = len("2026-11-26T15:16:10.123")


def main(fd: int, form: TopForm) -> None:
    """Prints what comes until enough tables are printed, or nobody reads them any more."""
    with ExitStack() as resources, printing():
        summer = Summer(open_database((), resources))
        for part in islice(follow_slices(fd, form.interval_ns), form.count or None):
            activity = summer.load(part, form.by, form.sort, form.top)
            is_too_low = part.lost + part.left_out > 0
            lines = activity_lines(activity, form.width, is_too_low=is_too_low)
            print(headline(part, activity.summary.total.ios), *lines, "", sep="\n", flush=True)


def headline(part: Slice, ios: int) -> str:
    """When a slice ended, how long it was, what is in it and what is not."""
    length_ns = part.window.end_ns - part.window.begin_ns
    said = f"{format_rfc3339(part.window.end_ns)[:_MILLISECONDS]}Z, {format_duration(length_ns)}"
    said += f": {format_counted(ios, 'I/O')}"
    if part.lost:
        said += f", {format_counted(part.lost, 'I/O')} lost"
    if part.left_out:
        said += f", {format_counted(part.left_out, 'I/O')} left out"
    return said


if __name__ == "__main__":
    main(int(sys.argv[1]), parse_object(TopForm, json.loads(sys.argv[2])))
