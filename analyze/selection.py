# SPDX-License-Identifier: GPL-2.0-only
"""Which part of a capture is looked at."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from analyze.errors import IorecError, unknown_name
from analyze.escape import escape_for_terminal
from analyze.schema import LAYERS
from analyze.sources import CaptureFile
from analyze.units import MOMENT_FORMS, format_duration, format_time, parse_moment_ns

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
    `request`, and `bio` if it has no requests; `syscall` if neither was recorded.
    """

    begin_s: float | None = None
    end_s: float | None = None
    where: str | None = None
    layer: str | None = None

    def __str__(self) -> str:
        """`in the layer bio from 1.5 s to 4 s where pid = 7`; empty if it is all that is shown."""
        parts = (
            "" if self.layer is None else f"in the layer {self.layer}",
            "" if self.begin_s is None else f"from {self.begin_s:.9g} s",
            "" if self.end_s is None else f"to {self.end_s:.9g} s",
            "" if self.where is None else f"where {escape_for_terminal(self.where)}",
        )
        return " ".join(filter(None, parts))

    @property
    def is_of_all_rows(self) -> bool:
        """Whether neither time nor a condition leaves out any of the layer."""
        return (self.begin_s, self.end_s, self.where) == (None, None, None)


def make_selection(
    span: Window,
    begin: float | str | None,
    end: float | str | None,
    where: str | None,
    layer: str | None,
) -> Selection:
    """Resolves begin and end: seconds from the start of the span, or a text as -b and -e take it.

    Negative ones count from the end of the span. Raises IorecError for a window or layer that makes
    no sense.
    """
    if layer not in (None, *LAYERS):
        raise unknown_name("show the layer", layer, LAYERS)
    begin_s, end_s = _seconds("begin", begin, span), _seconds("end", end, span)
    if begin_s is not None:
        begin_s = max(begin_s, 0.0)  # nothing was recorded before
    if end_s is not None and end_s <= (begin_s or 0):
        raise IorecError(
            f"the end of the window, {_from_start(end_s)}, is not after its begin,"
            f" {_from_start(begin_s or 0)}",
            format_span(span),
            exit_code=2,
        )
    return Selection(begin_s, end_s, where, layer)


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


def format_span(span: Window) -> str:
    """From when to when there are recordings."""
    length = format_duration(span.end_ns - span.begin_ns)
    return f"the capture is {length} long, from {format_time(span.begin_ns)} on"


def _seconds(name: str, when: float | str | None, span: Window) -> float | None:
    """From the start of the span; negative for a time before it."""
    if isinstance(when, str):
        return (parse_moment_ns(when, *span) - span.begin_ns) / _SECOND_NS
    if when is not None and not math.isfinite(when):
        raise IorecError(
            f"the {name} of the window is {when:g}, not a number of seconds",
            f"give {MOMENT_FORMS}",
            exit_code=2,
        )
    if when is not None and when < 0:
        return when + (span.end_ns - span.begin_ns) / _SECOND_NS
    return when


def _from_start(seconds: float) -> str:
    return f"{seconds:.9g} s from the start"


def _moment(span: Window, seconds: float) -> int:
    """Some seconds after the start, or the last moment that a timestamp can hold."""
    return min(span.begin_ns + round(min(seconds * _SECOND_NS, _LAST_TIME_NS)), _LAST_TIME_NS)
