# SPDX-License-Identifier: GPL-2.0-only
"""What went wrong beside the events, counted for each of several captures of one recording."""

import time

from analyze.metadata import ClockReading
from iorec.host.notes import Notes


def now() -> ClockReading:
    reading = time.monotonic_ns()
    return ClockReading(reading, reading)


def test_a_capture_counts_what_happened_since_it_began() -> None:
    notes = Notes()
    for _ in range(1000):
        notes.add("cgroups", "gone")
    notes.add("devices", "gone")
    start, earlier = now(), notes.counts()
    assert notes.since(start, earlier) == ()
    notes.add("cgroups", "gone")
    (note,) = notes.since(start, earlier)
    assert (note.what, note.count) == ("cgroups", 1)
    assert note.first >= start.time_at(start.monotonic_ns)


def test_a_failure_that_is_guarded_is_a_note_and_goes_no_further() -> None:
    notes = Notes()
    start = now()
    with notes.guard("devices"):
        raise FileNotFoundError
    (note,) = notes.since(start, {})
    assert (note.what, note.message, note.count) == ("devices", "FileNotFoundError", 1)
