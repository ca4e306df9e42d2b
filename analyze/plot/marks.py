# SPDX-License-Identifier: GPL-2.0-only
"""Moments that are named by whoever asks for a picture: an alarm, a deployment, lines of a log."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from analyze.errors import IorecError
from analyze.opened import OpenedRows
from analyze.selection import format_span, recorded_span
from analyze.units import parse_moment_ns

_MOST_MARKS = 40  # a picture is not read with more
_FORM = re.compile(r"(\d{4}-\d\d-\d\d \S+?|[^\s=]+)(?:=|\s)\s*(.*\S)\s*")
_REMARKS = ("#", "--")  # journalctl tells of boots in lines with dashes
# As PostgreSQL's %m [%p] has it behind the time.
_ZONE = re.compile(r"([A-Z]{2,5}|[+-]\d\d(?::\d\d)?) (?=\[)")
_LOG_PREFIX = re.compile(r"\[\d+(?:-\d+)?\] (?:LOG:\s+)?")


@dataclass(frozen=True)
class Mark:
    """A moment, in ns since 1970, and what happened then."""

    time_ns: int
    text: str


def load_marks(
    capture: OpenedRows, texts: Sequence[str], path: Path | None = None
) -> tuple[Mark, ...]:
    """The marks of the window in the order of time: those given, and those of a file.

    Each is a time as -b takes it, `=` or a space, and a text; in the file one a line.
    """
    marks = [_parse_mark(text, capture) for text in texts]
    span = recorded_span(capture.files)
    for mark in marks:
        if not span.begin_ns <= mark.time_ns <= span.end_ns:
            raise _outside(f"the mark {mark.text[:40]!r} lies", capture)
    if path is not None:
        marks += _read_marks(path, capture)
    window = capture.window
    shown = [mark for mark in marks if window.begin_ns <= mark.time_ns <= window.end_ns]
    if len(shown) > _MOST_MARKS:
        raise IorecError(
            f"{len(shown):,} marks are more than the {_MOST_MARKS} that a picture has room for",
            "give fewer lines, as grep leaves them, or narrow the window with -b and -e",
            exit_code=2,
        )
    return tuple(sorted(shown, key=lambda mark: mark.time_ns))


def _parse_mark(text: str, capture: OpenedRows) -> Mark:
    """A time and what follows it."""
    match = _FORM.fullmatch(text)
    if match is None:
        raise IorecError(
            f"{text[:40]!r} is not a mark: it is not a time and a text",
            "write TIME=TEXT: 2.5s=checkpoint, 15:16:10=deployed",
            exit_code=2,
        )
    time, what = match.groups()
    if zone := _ZONE.match(what):
        time += _offset(zone[1])
        what = _LOG_PREFIX.sub("", what[zone.end() :], count=1)
    return Mark(parse_moment_ns(time, *recorded_span(capture.files)), what)


def _offset(zone: str) -> str:
    """How a zone is written behind a time."""
    if zone in ("UTC", "GMT"):
        return "Z"
    if zone[0] in "+-":
        return zone if ":" in zone else f"{zone}:00"
    raise IorecError(
        f"the time zone {zone} is not known",
        "give times in UTC (PostgreSQL: log_timezone = UTC), or with an offset such as +01:00",
        exit_code=2,
    )


def _read_marks(path: Path, capture: OpenedRows) -> list[Mark]:
    """The marks of a file that lie within the recordings, of which there must be one."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            marks = list(_parse_lines(file, path, capture))
    except OSError as error:
        raise IorecError(
            f"cannot read {path}: {error.strerror}", "give a file with a time and a text per line"
        ) from error
    span = recorded_span(capture.files)
    marks = [mark for mark in marks if span.begin_ns <= mark.time_ns <= span.end_ns]
    if not marks:
        raise _outside(f"all lines of {path} lie", capture)
    return marks


def _parse_lines(lines: Iterable[str], path: Path, capture: OpenedRows) -> Iterable[Mark]:
    for number, line in enumerate(lines, start=1):
        if line.startswith(_REMARKS) or line[:1].isspace():  # or goes on from the line before
            continue
        try:
            yield _parse_mark(line.rstrip("\n"), capture)
        except IorecError as error:
            raise IorecError(f"{path}, line {number}: {error.message}", error.hint, 2) from error


def _outside(what: str, capture: OpenedRows) -> IorecError:
    span = format_span(recorded_span(capture.files))
    return IorecError(f"{what} outside of the capture", f"{span}; without a zone it is UTC", 2)
