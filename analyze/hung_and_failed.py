# SPDX-License-Identifier: GPL-2.0-only
"""Lists the I/Os that people hunt: those that never completed and those that failed."""

from dataclasses import dataclass
from typing import Any

from analyze.opened import OpenedRows
from analyze.typed_json import EpochNs

_SHOWN = 10


@dataclass(frozen=True)
class Trouble:
    """An I/O that failed, or one that had been in flight for `age_ns` when recording stopped."""

    time: EpochNs | None  # of the submission
    op: str | None
    device: str | None
    offset: int | None
    bytes: int | None
    pid: int | None
    tid: int | None
    comm: str | None
    latency_ns: int | None
    age_ns: int | None
    errno: int | None


@dataclass(frozen=True)
class Troubles:
    """The first of `count` such I/Os, the oldest first."""

    count: int
    shown: tuple[Trouble, ...]


def load_in_flight(capture: OpenedRows, count: int) -> Troubles:
    """The I/Os that did not complete; `count` is how many are known to be there."""
    return _load_troubles(capture, "latency_ns IS NULL", count)


def load_failed(capture: OpenedRows, count: int) -> Troubles:
    """The I/Os that ended with an error; `count` is how many are known to be there."""
    return _load_troubles(capture, "errno <> 0", count)


def _load_troubles(capture: OpenedRows, condition: str, count: int) -> Troubles:
    if count == 0:
        return Troubles(0, ())
    rows = capture.records(
        f"SELECT epoch_ns(time) AS time_ns, op, {capture.named('device')} AS device,"
        ' "offset", bytes, pid, tid, comm, latency_ns, errno'
        f" FROM io WHERE {condition} ORDER BY time LIMIT {_SHOWN}"
    )
    return Troubles(count, tuple(_make_trouble(capture, **row) for row in rows))


def _make_trouble(capture: OpenedRows, time_ns: int | None, **fields: Any) -> Trouble:
    if time_ns is None:
        return Trouble(time=None, age_ns=None, **fields)
    age_ns = None
    if fields["latency_ns"] is None:
        age_ns = max(_stop_of_recording(capture, time_ns) - time_ns, 0)
    return Trouble(time=EpochNs(time_ns), age_ns=age_ns, **fields)


def _stop_of_recording(capture: OpenedRows, time_ns: int) -> int:
    """When the first recording that was running at a time stopped, or the last one of all."""
    spans = [(file.metadata.started_at, file.metadata.stopped_at) for file in capture.files]
    running = [stop for start, stop in spans if start <= time_ns <= stop]
    return min(running, default=max(stop for _, stop in spans))
