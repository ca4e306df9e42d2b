# SPDX-License-Identifier: GPL-2.0-only
"""Where on each device I/O went over time."""

from dataclasses import dataclass

import numpy as np

from analyze.latency import FloatArray
from analyze.opened import OpenedRows
from analyze.plot.bins import OPS, Devices, add_up, device_sql, query_timed
from analyze.plot.hung import HungIo, load_hung
from analyze.plot.timeline import Timeline

_OFFSET_BINS = 96
_SECTOR_BYTES = 512


@dataclass(frozen=True)
class DeviceOffsets:
    """The I/Os of one device; an offset past the device's end counts as its end."""

    device: str | None
    io_count: int
    edges_bytes: FloatArray
    counts: FloatArray  # (op, offset bin, time bin)
    failed: FloatArray  # (offset bin, time bin)
    hung: tuple[HungIo, ...]  # that have an offset


@dataclass(frozen=True)
class _Range:
    device: str | None
    io_count: int
    low: int
    high: int

    @property
    def step(self) -> int:
        """Bytes to a bin: sectors at least, and not so few that all labels would look the same."""
        return max((self.high - self.low) // _OFFSET_BINS + 1, _SECTOR_BYTES, self.high >> 20)


def load_offsets(
    capture: OpenedRows, timeline: Timeline, devices: Devices
) -> tuple[DeviceOffsets | None, ...]:
    """Of each device that is shown; None if none of its I/Os has an offset."""
    found = capture.sql(
        f"""
        SELECT {device_sql(capture)} AS name, count(*) AS ios, greatest(min("offset"), 0),
            greatest(max("offset"), 0)
        FROM io WHERE "offset" IS NOT NULL GROUP BY name
        """
    ).fetchall()
    ends = {
        name: device.size_bytes
        for name, device in capture.devices.items()
        if device.size_bytes is not None
    }
    ranges = [
        _Range(name, ios, low, max(low, min(high, ends.get(name, high))))
        for name, ios, low, high in found
        if name in devices.shown
    ]
    counts, failed = _count(capture, timeline, ranges)
    hung = [io for io in load_hung(capture, timeline) if io.offset is not None]
    offsets = {
        range_.device: DeviceOffsets(
            range_.device,
            range_.io_count,
            range_.low + np.arange(_OFFSET_BINS + 1) * float(range_.step),
            counts[row],
            failed[row],
            tuple(io for io in hung if io.device == range_.device),
        )
        for row, range_ in enumerate(ranges)
    }
    return tuple(map(offsets.get, devices.shown))


def _count(
    capture: OpenedRows, timeline: Timeline, ranges: list[_Range]
) -> tuple[FloatArray, FloatArray]:
    """I/Os by (device, op, offset bin, time bin), and failed ones by (device, ...)."""
    cells = query_timed(
        capture,
        timeline,
        f"""
        SELECT row, op_index, start_bin, count(*) AS ios, sum(has_failed::INT)::BIGINT AS failed,
            CASE WHEN "offset" BETWEEN low AND high THEN "offset" - low
                WHEN "offset" > high THEN high - low ELSE 0 END // step AS offset_bin
        FROM timed JOIN (
            SELECT unnest($devices::VARCHAR[]) AS name, unnest($lows) AS low,
                unnest($highs) AS high, unnest($steps) AS step, unnest(range(len($lows))) AS row
        ) ON {device_sql(capture)} IS NOT DISTINCT FROM name
        WHERE "offset" IS NOT NULL GROUP BY ALL
        """,
        {
            "devices": [range_.device for range_ in ranges],
            "lows": [range_.low for range_ in ranges],
            "highs": [range_.high for range_ in ranges],
            "steps": [range_.step for range_ in ranges],
        },
    ).fetchnumpy()
    places = (cells["offset_bin"], cells["start_bin"])
    shape = (_OFFSET_BINS, timeline.bin_count)
    by_op = (cells["row"], cells["op_index"], *places)
    return (
        add_up((len(ranges), len(OPS), *shape), by_op, cells["ios"]),
        add_up((len(ranges), *shape), (cells["row"], *places), cells["failed"]),
    )
