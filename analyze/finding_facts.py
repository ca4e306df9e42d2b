# SPDX-License-Identifier: GPL-2.0-only
"""Gathers what the rules look at: sums by process and by time, in two scans of the capture."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from analyze.metadata import Device
from analyze.opened import OpenedRows
from analyze.row_query import PROCESS_NAME, quoted

# Of so many processes of a device, those with the most bytes, the course over time is looked at.
_MOST_PROCESSES = 8
_BINS = 1000
_LEAST_BIN_NS = 10_000_000
_SECOND_NS = 1_000_000_000


# SQL for I/Os that are counted apart; without double quotes, so that a shell takes it within some.
SMALL_SYNC = "contains(flags, 'sync') AND bytes BETWEEN 1 AND 16384"
FLUSHING = "(op = 'flush' OR contains(flags, 'preflush') OR contains(flags, 'fua'))"
MISALIGNED = "op IN ('read', 'write') AND (io.offset | bytes) & 4095 <> 0"


@dataclass(frozen=True)
class Share:
    """The I/Os of one operation that a process sent to a device, failed ones too.

    `time_ns` is the sum of their latency, `queue_ns` the part of it before they went to the device,
    of requests. `small_sync` are those of 16 KiB or less that somebody waits for, `flushing` those
    that wait for a flush of the device's cache, `misaligned` those with data that do not begin and
    end at multiples of 4 KiB.
    """

    device: str
    device_where: str  # selects its rows
    pid: int | None
    name: str | None
    op: str
    ios: int
    bytes: int
    time_ns: int
    queue_ns: int
    errors: int
    small_sync: int
    small_sync_ns: int
    flushing: int
    flushing_ns: int
    misaligned: int
    first_ns: int
    last_ns: int  # when the last one ended
    lowest: int  # offset
    highest: int  # where the last byte ends

    @property
    def process(self) -> str:
        """What people call it."""
        return process_name(self.pid, self.name)

    @property
    def mean_in_flight(self) -> float:
        """Between the first submission and the last completion (Little's law)."""
        return self.time_ns / max(self.last_ns - self.first_ns, 1)

    @property
    def mean_bytes(self) -> float:
        """Of one I/O."""
        return self.bytes / self.ios

    @property
    def where(self) -> str:
        """Selects these rows."""
        return f"{self.process_where} AND op = {quoted(self.op)}"

    @property
    def process_where(self) -> str:
        """Selects all that the process sent to the device."""
        is_named = f" AND {PROCESS_NAME} = {quoted(self.name)}" if self.name is not None else ""
        return f"{self.device_where} AND {pid_where(self.pid)}{is_named}"


@dataclass(frozen=True)
class Course:
    """What a process did over time: bytes, I/Os and latency (ns) by bin."""

    pid: int | None
    name: str | None
    bytes: NDArray[np.int64]
    ios: NDArray[np.int64]
    time_ns: NDArray[np.int64]

    @property
    def process(self) -> str:
        """What people call it."""
        return process_name(self.pid, self.name)


class Facts:
    """What the rules look at, loaded when it is first asked for."""

    def __init__(self, capture: OpenedRows) -> None:
        self.capture = capture
        self.length_ns = max(capture.window.end_ns - capture.window.begin_ns, 1)
        self.bin_ns = max(self.length_ns // _BINS, _LEAST_BIN_NS)

    @cached_property
    def shares(self) -> tuple[Share, ...]:
        """All of them, cache flushes of devices too."""
        rows = self.capture.records(
            f"SELECT {self.capture.named('device')} AS device, host, device AS of_host, pid,"
            f" {PROCESS_NAME} AS name, op,"
            " count(*) AS ios, sum(bytes)::BIGINT AS bytes, sum(latency_ns)::BIGINT AS time_ns,"
            " coalesce(sum(queue_ns) FILTER (layer = 'request'), 0)::BIGINT AS queue_ns,"
            " count(*) FILTER (errno <> 0) AS errors,"
            f" count(*) FILTER ({SMALL_SYNC}) AS small_sync,"
            f" coalesce(sum(latency_ns) FILTER ({SMALL_SYNC}), 0)::BIGINT AS small_sync_ns,"
            f" count(*) FILTER ({FLUSHING}) AS flushing,"
            f" coalesce(sum(latency_ns) FILTER ({FLUSHING}), 0)::BIGINT AS flushing_ns,"
            f" count(*) FILTER ({MISALIGNED}) AS misaligned,"
            " coalesce(epoch_ns(min(time)), 0) AS first_ns,"
            " coalesce(max(epoch_ns(time) + latency_ns), 0) AS last_ns,"
            ' coalesce(min("offset"), 0) AS lowest,'
            ' coalesce(max("offset" + bytes), 0) AS highest'
            " FROM io WHERE latency_ns IS NOT NULL AND device IS NOT NULL"
            " GROUP BY ALL ORDER BY time_ns DESC"
        )
        return tuple(
            Share(device_where=self._device_where(row.pop("host"), row.pop("of_host")), **row)
            for row in rows
        )

    def device_where(self, device: str) -> str:
        """Selects the rows of a device."""
        return next(share.device_where for share in self.shares if share.device == device)

    def _device_where(self, host: str, name: str) -> str:
        of_host = f"host = {quoted(host)} AND " if self.capture.has_several_hosts else ""
        return f"{of_host}device = {quoted(name)}"

    @property
    def devices(self) -> Iterator[tuple[str, Device | None, list[Share]]]:
        """Each device with its description, if there is one, and its shares."""
        described = self.capture.devices
        for device in dict.fromkeys(share.device for share in self.shares):
            shares = [share for share in self.shares if share.device == device]
            yield device, described.get(device), shares

    @cached_property
    def courses(self) -> dict[str, list[Course]]:
        """By device: the processes that moved most bytes, the largest first, then all others."""
        by_device: dict[str, dict[int | None, int]] = {}
        names: dict[tuple[str, int | None], str | None] = {}
        for share in self.shares:
            moved = by_device.setdefault(share.device, {})
            moved[share.pid] = moved.get(share.pid, 0) + share.bytes
            names.setdefault((share.device, share.pid), share.name)
        shown = {
            device: sorted((pid for pid in moved if pid is not None), key=moved.__getitem__)
            for device, moved in by_device.items()
        }
        kept = {device: pids[: -_MOST_PROCESSES - 1 : -1] for device, pids in shown.items()}
        found = self._binned(kept)
        return {
            device: [
                Course(pid, names.get((device, pid)), *found[device, pid])
                for pid in (*kept[device], None)
                if (device, pid) in found
            ]
            for device in by_device
        }

    def _binned(
        self, kept: dict[str, list[int]]
    ) -> dict[tuple[str, int | None], NDArray[np.int64]]:
        """By device and process: bytes, I/Os and latency of each bin; None are all others."""
        named = self.capture.named("device")
        listed = " OR ".join(
            f"{named} = {quoted(device)} AND pid IN ({', '.join(map(str, pids))})"
            for device, pids in kept.items()
            if pids
        )
        rows = self.capture.sql(
            f"SELECT {named} AS device, CASE WHEN {listed or 'false'} THEN pid END AS kept,"
            f" (epoch_ns(time) - {self.capture.window.begin_ns}) // {self.bin_ns} AS bin,"
            " sum(bytes)::BIGINT, count(*), sum(latency_ns)::BIGINT FROM io"
            " WHERE latency_ns IS NOT NULL AND device IS NOT NULL AND op <> 'cache_flush'"
            " GROUP BY ALL HAVING bin IS NOT NULL"
        ).fetchall()
        count = self.length_ns // self.bin_ns + 1
        found: dict[tuple[str, int | None], NDArray[np.int64]] = {}
        for device, pid, place, *values in rows:
            course = found.setdefault((device, pid), np.zeros((3, count), np.int64))
            course[:, min(max(place, 0), count - 1)] += values
        return found

    def seconds(self, time_ns: int) -> float:
        """Since the start of the capture, as -b and -e take it."""
        return (time_ns - self.capture.origin_ns) / _SECOND_NS


def process_name(pid: int | None, name: str | None) -> str:
    """The name, and the number if there is one."""
    text = "no process" if name is None else name
    return text if pid is None else f"{text} ({pid})"


def pid_where(pid: int | None) -> str:
    """Selects the rows of a process."""
    return "pid IS NULL" if pid is None else f"pid = {pid}"


def time_of(shares: Sequence[Share]) -> int:
    """The sum of their latency, in ns."""
    return sum(share.time_ns for share in shares)


def ios_of(shares: Sequence[Share]) -> int:
    """How many I/Os they are."""
    return sum(share.ios for share in shares)
