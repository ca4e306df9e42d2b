# SPDX-License-Identifier: GPL-2.0-only
"""Reads the conditions at which a flight recorder writes a capture."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from analyze.errors import IorecError
from analyze.units import parse_duration_ns

PRESSURE = Path("/proc/pressure/io")
TRIGGER_FORMS = "latency > 100ms, errno, stalled 5s, in_flight > 64, psi io some > 40%"
_MOST_IOS = 1 << 32
_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?")
_TOKEN = re.compile(r"\s*([a-z_]+|>=?|[0-9][0-9.a-zµ]*|%|\S)", re.IGNORECASE)


@dataclass(frozen=True)
class Trigger:
    """One condition: `kind` is its first word, and what that is compared with.

    `latency` and `stalled` are in nanoseconds, `in_flight` counts I/Os of one device, `psi some`
    and `psi full` are a part of the time, out of 1.
    """

    text: str
    kind: str
    limit: float


def parse_trigger(text: str) -> Trigger:
    """Reads a condition; IorecError, which shows the place, for one that is none."""
    reader = _Reader(text)
    word = reader.take("latency", "errno", "stalled", "in_flight", "psi")
    kind, limit = word, 0.0
    if word == "latency":
        reader.take(">")
        limit = reader.duration_ns()
    elif word == "stalled":
        limit = reader.duration_ns()
    elif word == "in_flight":
        reader.take(">")
        limit = reader.number("a number of I/Os")
    elif word == "psi":
        reader.take("io")
        kind = f"psi {reader.take('some', 'full')}"
        reader.take(">")
        limit = reader.number("a percentage", below=100) / 100
        reader.take("%")
    reader.end()
    return Trigger(" ".join(text.split()), kind, limit)


def check_triggers(triggers: Sequence[Trigger]) -> None:
    """Raises IorecError for what this kernel cannot tell."""
    for trigger in triggers:
        if trigger.kind.startswith("psi"):
            try:
                read_pressure(trigger.kind.removeprefix("psi "))
            except OSError as error:
                raise IorecError(
                    f"the trigger {trigger.text!r} needs {PRESSURE}: {error.strerror}",
                    "boot with psi=1, on a kernel with CONFIG_PSI",
                ) from error


def read_pressure(which: str) -> float:
    """The part of the last ten seconds in which tasks waited for I/O.

    `some`: at least one; `full`: all that were not idle at once (Documentation/accounting/psi.rst).
    """
    line = next(line for line in PRESSURE.read_text().splitlines() if line.startswith(which))
    return float(line.partition("avg10=")[2].split()[0]) / 100


class _Reader:
    """Words of a condition, one after the other; an error shows the place of the last one."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._place = self._end = 0

    def take(self, *words: str) -> str:
        """The next word, which is one of these."""
        word = self._next()
        if word not in words:
            raise self._error(f"expected {' or '.join(words)}")
        return word

    def duration_ns(self) -> int:
        """A duration up to the end of the text."""
        self._next()
        rest = self._text[self._place :]
        self._end = len(self._text)
        try:
            return parse_duration_ns(rest.strip())
        except IorecError as error:
            raise self._error("expected a time such as 100ms") from error

    def number(self, what: str, below: float = _MOST_IOS) -> float:
        """A number from 0 to one that something can be more than."""
        word = self._next()
        if not _NUMBER.fullmatch(word) or float(word) >= below:
            raise self._error(f"expected {what}, below {below:,.0f}")
        return float(word)

    def end(self) -> None:
        """Nothing else may follow."""
        if self._next():
            raise self._error("expected nothing more")

    def _next(self) -> str:
        found = _TOKEN.match(self._text, self._end)
        self._place = found.start(1) if found else len(self._text.rstrip())
        self._end = found.end() if found else len(self._text)
        return found[1] if found else ""

    def _error(self, expected: str) -> IorecError:
        return IorecError(
            f"cannot read the trigger: {expected}",
            f"triggers are: {TRIGGER_FORMS}",
            exit_code=2,
            place=(self._text, self._place),
        )
