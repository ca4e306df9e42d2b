# SPDX-License-Identifier: GPL-2.0-only
"""Lists the I/Os that people hunt: those that never completed, those that failed, the slowest."""

from dataclasses import dataclass
from typing import Any

from analyze.errors import IorecError
from analyze.opened import OpenedRows
from analyze.row_query import PROCESS_NAME
from analyze.schema import BLOCK_LAYERS
from analyze.typed_json import EpochNs

_SHOWN = 10
_SHOWN_CALLS = 3  # that failed: a shell's search for its programs is many
_MAX_SLOWEST = 20_000  # which fit into memory


@dataclass(frozen=True)
class ListedIo:
    """One I/O; `age_ns` says how long it had been in flight when recording stopped, if it was.

    `latency_ns` is the sum of `queue_ns`, before the I/O went to the device, and `device_ns`.
    """

    time: EpochNs | None  # of the submission
    op: str | None
    device: str | None
    offset: int | None
    bytes: int | None
    pid: int | None
    tid: int | None
    comm: str | None
    process: str | None
    cmdline: str | None
    file: str | None
    wait: str | None
    queue_ns: int | None
    device_ns: int | None
    latency_ns: int | None
    age_ns: int | None
    errno: int | None


@dataclass(frozen=True)
class Failure:
    """How many I/Os of an operation failed with an error."""

    op: str | None
    errno: int
    count: int


@dataclass(frozen=True)
class Listing:
    """The first of `count` such I/Os, the oldest first; `failures` are all of those that failed."""

    count: int
    shown: tuple[ListedIo, ...]
    failures: tuple[Failure, ...] = ()


def load_in_flight(capture: OpenedRows, count: int) -> Listing:
    """The I/Os that did not complete; `count` is how many are known to be there."""
    return Listing(count, _load(capture, "latency_ns IS NULL", "time", _SHOWN) if count else ())


def load_failed(capture: OpenedRows, count: int) -> Listing:
    """The I/Os that ended with an error; `count` is how many are known to be there."""
    if not count:
        return Listing(0, ())
    kinds = capture.records(
        "SELECT op, errno, count(*) AS count FROM io WHERE errno <> 0"
        " GROUP BY op, errno ORDER BY count DESC, op, errno"
    )
    is_of_disks = capture.selection.layer in (None, *BLOCK_LAYERS)
    shown = _load(capture, "errno <> 0", "time", _SHOWN if is_of_disks else _SHOWN_CALLS)
    return Listing(count, shown, tuple(Failure(**kind) for kind in kinds))


def load_slowest(capture: OpenedRows, count: int) -> tuple[ListedIo, ...]:
    """The `count` I/Os of the greatest latency, the slowest first; failed and cache flushes too.

    Raises IorecError for more than fit into memory.
    """
    if count > _MAX_SLOWEST:
        raise IorecError(
            f"cannot list {count:,} I/Os",
            f"list {_MAX_SLOWEST:,} at most, or query the capture with DuckDB",
            exit_code=2,
        )
    return _load(capture, "latency_ns IS NOT NULL", "latency_ns DESC, time", count)


def _load(capture: OpenedRows, condition: str, order: str, limit: int) -> tuple[ListedIo, ...]:
    rows = capture.records(
        f"SELECT epoch_ns(time) AS time_ns, op, {capture.named('device')} AS device,"
        f' "offset", bytes, pid, tid, comm, {PROCESS_NAME} AS process, cmdline, file, wait,'
        " queue_ns, latency_ns - queue_ns AS device_ns, latency_ns, errno FROM io"
        f" WHERE {condition} ORDER BY {order} LIMIT {limit}"
    )
    return tuple(_make_io(capture, **row) for row in rows)


def _make_io(capture: OpenedRows, time_ns: int | None, **fields: Any) -> ListedIo:
    if time_ns is None:
        return ListedIo(time=None, age_ns=None, **fields)
    age_ns = None
    if fields["latency_ns"] is None:
        age_ns = max(capture.recorded_until_ns(time_ns) - time_ns, 0)
    return ListedIo(time=EpochNs(time_ns), age_ns=age_ns, **fields)
