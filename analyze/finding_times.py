# SPDX-License-Identifier: GPL-2.0-only
"""Rules that look at when I/Os were done."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from analyze.finding import Finding
from analyze.finding_facts import Facts, ios_of, pid_where, time_of
from analyze.units import format_bytes, format_count, format_duration, format_percent

_LEAST_BINS = 30
_LEAST_BURSTS = 4
_MANY_BURSTS = 8
_LEAST_PERIOD = 4  # bins
_LEAST_STALL_NS = 50_000_000
_MOST_CANDIDATES = 100_000
_MOST_STALLS = 3  # of a device


def periodic_bursts(facts: Facts) -> Iterator[Finding]:
    """A process moves most of its bytes in short bursts at equal distances."""
    for device, courses in facts.courses.items():
        for course in courses:
            if course.pid is None or course.ios.sum() < _LEAST_BINS:
                continue
            is_burst = course.bytes > 2 * course.bytes.mean()
            part = course.bytes[is_burst].sum() / course.bytes.sum()
            distances = _distances(np.flatnonzero(is_burst))
            if part < 0.5 or is_burst.mean() > 0.5 or not len(distances):
                continue
            period_ns = float(distances.mean()) * facts.bin_ns
            size = format_bytes(int(course.bytes.sum()))
            yield Finding(
                "periodic-bursts",
                "high" if len(distances) >= _MANY_BURSTS else "medium",
                f"{course.process} does I/O on {device} in bursts every"
                f" {format_duration(period_ns)}: {format_percent(part)} of its {size}"
                f" in {format_percent(is_burst.mean())} of the time",
                device,
                course.pid,
                course.name,
                float(part),
                f"{facts.device_where(device)} AND {pid_where(course.pid)}",
            )


def _distances(places: NDArray[np.intp]) -> NDArray[np.intp]:
    """From burst to burst, those that are alike, in bins; none if most are not.

    `places` are the bins with much I/O. How large a hole within a burst may be is not known: the
    smallest one is taken with which at least 0.7 of the distances, and of the time, are alike, up
    to a quarter of the distance.
    """
    hole = 1
    while True:
        starts: NDArray[np.intp] = np.delete(places, 1 + np.flatnonzero(np.diff(places) <= hole))
        distances = np.diff(starts)
        if len(starts) < _LEAST_BURSTS:
            return starts[:0]
        middle = np.median(distances)
        # Few are alike by chance, too.
        tolerance = middle * (0.2 if len(distances) >= _MANY_BURSTS else 0.1)
        alike: NDArray[np.intp] = distances[np.abs(distances - middle) <= max(tolerance, 1)]
        is_regular = min(len(alike) / len(distances), alike.sum() / distances.sum()) >= 0.7
        if is_regular and middle >= max(_LEAST_PERIOD, 4 * hole):
            return alike
        hole *= 2


def waits_behind(facts: Facts) -> Iterator[Finding]:
    """The I/Os of other processes take far longer while one process does most of the bytes."""
    for device, courses in facts.courses.items():
        if len(courses) < 2 or courses[0].pid is None:
            continue
        heavy, others = courses[0], courses[1:]
        is_busy = heavy.bytes > sum(course.bytes for course in others)
        ios = sum((course.ios for course in others), np.zeros_like(heavy.ios))
        time_ns = sum((course.time_ns for course in others), np.zeros_like(heavy.ios))
        beside, alone = int(ios[is_busy].sum()), int(ios[~is_busy].sum())
        if beside < _LEAST_BINS or alone < _LEAST_BINS:
            continue
        beside_ns = time_ns[is_busy].sum() / beside
        alone_ns = time_ns[~is_busy].sum() / alone
        if beside_ns < 3 * alone_ns:
            continue
        yield Finding(
            "waits-behind",
            "high" if beside_ns >= 10 * alone_ns else "medium",
            f"while {heavy.process} keeps {device} busy, an I/O of others takes"
            f" {format_duration(beside_ns)}, else {format_duration(alone_ns)}",
            device,
            heavy.pid,
            heavy.name,
            float(is_busy.mean()),
            f"{facts.device_where(device)} AND pid <> {heavy.pid}",
        )


class _Late(NamedTuple):
    """An I/O that took long, ns since 1970."""

    start_ns: int
    end_ns: int


def stalls(facts: Facts) -> Iterator[Finding]:
    """For a while a device ended nothing, with several I/Os in flight: all were late at once.

    An I/O is late if it took 50 ms and ten times the device's mean.
    """
    for device, _, shares in facts.devices:
        mean_ns = time_of(shares) / ios_of(shares)
        least_ns = max(_LEAST_STALL_NS, round(10 * mean_ns))
        rows = facts.capture.sql(
            "SELECT epoch_ns(time), epoch_ns(time) + latency_ns FROM io"
            f" WHERE {facts.device_where(device)} AND latency_ns >= {least_ns}"
            f" ORDER BY 2 LIMIT {_MOST_CANDIDATES}"
        ).fetchall()
        spans = sorted(_stalls([_Late(*row) for row in rows], least_ns), key=lambda span: -span[2])
        for begin_ns, end_ns, count in spans[:_MOST_STALLS]:
            during = f"epoch_ns(time) + latency_ns > {begin_ns}"
            [(ended,)] = facts.capture.sql(
                f"SELECT count(*) FROM io WHERE {facts.device_where(device)} AND {during}"
                f" AND epoch_ns(time) + latency_ns < {end_ns}"
            ).fetchall()
            if ended:
                continue
            at = facts.seconds(begin_ns)
            yield Finding(
                "stall",
                "high",
                f"{device} ended nothing for {format_duration(end_ns - begin_ns)}, from {at:.3f} s"
                f" on, with {format_count(count)} I/Os in flight that had all come before",
                device,
                None,
                None,
                min((end_ns - begin_ns) / facts.length_ns, 1.0),
                f"{facts.device_where(device)} AND latency_ns >= {least_ns}",
                max(at - 1, 0.0),
                facts.seconds(end_ns),
            )


def _stalls(late: list[_Late], least_ns: int) -> Iterator[tuple[int, int, int]]:
    """From when to when, and of how many I/Os: four or more that were all in flight.

    `late` are in the order of their ends. A stall ends with the first of its I/Os, and three of
    four others end within as long again; it began when the last of them was submitted.
    """
    place = 0
    while place < len(late):
        end_ns = late[place].end_ns
        inside = [one for one in late[place:] if one.start_ns <= end_ns - least_ns // 2]
        begin_ns = max((one.start_ns for one in inside), default=end_ns)
        length_ns = end_ns - begin_ns
        together = sum(one.end_ns <= end_ns + length_ns for one in inside)
        if together >= max(4, 3 / 4 * len(inside)) and length_ns >= least_ns // 2:
            yield begin_ns, end_ns, len(inside)
        place += max(len(inside), 1)
