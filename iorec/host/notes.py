# SPDX-License-Identifier: GPL-2.0-only
"""Collects what went wrong beside the events while recording went on."""

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from analyze.metadata import ClockReading, Note

# Of each part of the recorder there are few different failures; a name in the message of each
# would make them many.
_MOST_NOTES = 100
_MOST_MESSAGE = 400
_ANY_OTHER = "other failures"


@dataclass
class _Failure:
    """How often the same thing went wrong, and in which span of monotonic time."""

    first_ns: int
    last_ns: int
    count: int


class Notes:
    """What failed, by part of the recorder and cause; a recording never ends for it."""

    def __init__(self) -> None:
        self._notes: dict[tuple[str, str], _Failure] = {}

    def add(self, what: str, message: str, first_ns: int | None = None, count: int = 1) -> None:
        """Notes a failure of now, or one that has lasted since `first_ns` (CLOCK_MONOTONIC)."""
        now_ns = time.monotonic_ns()
        first_ns = now_ns if first_ns is None else first_ns
        # It may have names of any bytes.
        key = what, message[:_MOST_MESSAGE].encode(errors="backslashreplace").decode()
        if key not in self._notes and len(self._notes) >= _MOST_NOTES:
            key = what, _ANY_OTHER
        note = self._notes.setdefault(key, _Failure(first_ns, now_ns, 0))
        note.first_ns = min(note.first_ns, first_ns)
        note.last_ns = now_ns
        note.count += count

    @contextlib.contextmanager
    def guard(self, what: str) -> Iterator[None]:
        """Notes whatever fails within, and goes on behind it; an interrupt still interrupts."""
        try:
            yield
        except Exception as error:
            self.add(what, str(error) or type(error).__name__)

    def counts(self) -> dict[tuple[str, str], int]:
        """How often each has happened so far, for `since`."""
        return {key: note.count for key, note in self._notes.items()}

    def since(
        self, start: ClockReading, earlier: Mapping[tuple[str, str], int]
    ) -> tuple[Note, ...]:
        """Those of a capture that began then, when the `earlier` ones had happened."""
        return tuple(
            Note(
                what,
                message,
                first=start.time_at(max(note.first_ns, start.monotonic_ns)),
                last=start.time_at(note.last_ns),
                count=note.count - earlier.get((what, message), 0),
            )
            for (what, message), note in self._notes.items()
            if note.last_ns >= start.monotonic_ns
        )
