# SPDX-License-Identifier: GPL-2.0-only
"""Which part of a capture is looked at."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from analyze.errors import IorecError
from analyze.schema import LAYERS
from analyze.sources import CaptureFile

_SECOND_NS = 1_000_000_000
_LAST_TIME_NS = 2**63 - 2  # DuckDB keeps the last value of an int64 for infinity


class Window(NamedTuple):
    """The span of time that is looked at, in ns since 1970; the end is not part of it."""

    begin_ns: int
    end_ns: int


@dataclass(frozen=True)
class Selection:
    """What a capture is narrowed to: seconds from the start of the first recording, a condition.

    Two layers see the same I/O, so only one is looked at: the given one, or of each device
    `request`, and `bio` if it has no requests.
    """

    begin_s: float | None = None
    end_s: float | None = None
    where: str | None = None
    layer: str | None = None


def check_selection(selection: Selection) -> None:
    """Raises IorecError for a window or layer that makes no sense."""
    if selection.layer not in (None, *LAYERS):
        known = ", ".join(LAYERS)
        raise IorecError(f"there is no layer {selection.layer!r}", f"choose from: {known}", 2)
    begin_s, end_s = selection.begin_s, selection.end_s
    for name, value in (("begin", begin_s), ("end", end_s)):
        if value is not None and not 0 <= value < math.inf:
            raise IorecError(
                f"the {name} of the window is {value:g}, not a number of seconds from the start",
                "give zero or more, such as --begin 1.5 --end 10",
                exit_code=2,
            )
    if end_s is not None and end_s <= (begin_s or 0):
        raise IorecError(
            f"the end of the window, {end_s:g} s, is not after its begin, {begin_s or 0:g} s",
            "both are in seconds from the start of the capture",
            exit_code=2,
        )


def recorded_span(files: Sequence[CaptureFile]) -> Window:
    """From the start of the first recording to the stop of the last one."""
    return Window(
        min(file.metadata.started_at for file in files),
        max(file.metadata.stopped_at for file in files),
    )


def select_window(span: Window, selection: Selection) -> Window:
    """The span, or what the selection leaves of it."""
    begin_ns, end_ns = span
    if selection.begin_s is not None:
        begin_ns = _moment(span, selection.begin_s)
    if selection.end_s is not None:
        end_ns = _moment(span, selection.end_s)
    return Window(begin_ns, end_ns)


def _moment(span: Window, seconds: float) -> int:
    """Some seconds after the start, or the last moment that a timestamp can hold."""
    return min(span.begin_ns + round(min(seconds * _SECOND_NS, _LAST_TIME_NS)), _LAST_TIME_NS)
