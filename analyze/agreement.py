# SPDX-License-Identifier: GPL-2.0-only
"""Compares what was counted on each device with what /proc/diskstats counted."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from analyze.ledgers import all_ledgers
from analyze.metadata import Device, DeviceCounts, Metadata
from analyze.schema import BLOCK_LAYERS

_OPS = ("read", "write", "discard", "flush")  # passthrough is not in diskstats
_UNKNOWN_DEVICE = "?"


@dataclass(frozen=True)
class Agreement:
    """The I/Os and bytes of a device and op by our count and by that of diskstats.

    `edge_ios` of theirs, and `edge_bytes`, may lie just outside of the recording, so ours agrees
    from `diskstats_ios - edge_ios` to `diskstats_ios`, and its bytes likewise; `edge_bytes` is None
    where only the upper bound is known. `agrees` is None where they cannot be compared: the device
    takes no requests, or diskstats does not count it.
    """

    device: str
    op: str
    counted_ios: int
    counted_bytes: int
    diskstats_ios: int
    diskstats_bytes: int
    edge_ios: int
    edge_bytes: int | None
    agrees: bool | None


def compare_with_diskstats(captures: Sequence[Metadata]) -> tuple[Agreement, ...]:
    """One for each device and op that either side counted, over all captures, by device.

    What has no ledger, or no block layer, counted nothing, and is not compared.

    Requests are compared; of devices that have none, bios. An empty flush counts as a write of no
    bytes on either side, `flush` are the device's own cache flushes.
    """
    captures = [c for c in captures if c.counts is not None and {*BLOCK_LAYERS} & {*c.layers}]
    sums: Counter[tuple[str, str, str]] = Counter()
    for capture in captures:
        sums.update(_counts(capture))
    incomparable = {place for capture in captures for place in _incomparable(capture)}
    by_themselves = {name for capture in captures for name in _without_requests(capture)}
    return tuple(
        _agreement(
            sums,
            device,
            op,
            is_comparable=(device, op) not in incomparable,
            may_be_more=device in by_themselves and op == "write",
        )
        for device in sorted({device for device, _, _ in sums})
        for op in _OPS
        if sums[device, op, "counted_ios"] or sums[device, op, "diskstats_ios"]
    )


def _compared(capture: Metadata) -> list[DeviceCounts]:
    """The ledgers of requests, and of bios where a device has no requests."""
    bio_based = _without_requests(capture)
    return [
        entry
        for entry in all_ledgers(capture)
        if entry.layer == ("bio" if entry.device in bio_based else "request")
    ]


def _without_requests(capture: Metadata) -> set[str]:
    return {device.name for device in capture.devices if device.has_requests is False}


def _counts(capture: Metadata) -> Counter[tuple[str, str, str]]:
    """Both sides' counts by device, op and field of Agreement."""
    sums: Counter[tuple[str, str, str]] = Counter()
    for entry in _compared(capture):
        place = (entry.device or _UNKNOWN_DEVICE, entry.op)
        sums[*place, "counted_ios"] += (
            entry.recorded + entry.filtered + entry.lost + entry.began_before
        )
        sums[*place, "counted_bytes"] += (
            entry.recorded_bytes
            + entry.filtered_bytes
            + entry.lost_bytes
            + entry.began_before_bytes
        )
    # Of a write that flushes after its data, diskstats counts the bytes when the data are written.
    has_open_writes = capture.counts is not None and capture.counts.in_flight_at_stop > 0
    for device, groups in capture.diskstats.items():
        for op, stats in groups.items():
            sums[device, op, "diskstats_ios"] += stats.ios
            sums[device, op, "diskstats_bytes"] += stats.bytes
            sums[device, op, "edge_ios"] += stats.edge_ios
            sums[device, op, "edge_bytes"] += stats.edge_bytes or 0
            sums[device, op, "unbounded"] += stats.edge_bytes is None or (
                op == "write" and has_open_writes
            )
    return sums


def _incomparable(capture: Metadata) -> set[tuple[str, str]]:
    """Devices and ops that only one side can count.

    A device may be absent from diskstats. One without requests counts for itself: zram and pmem
    count each bio that reads or writes, but no discards, flushes and zeroing, which are writes
    here; device-mapper and md count the parts of a bio.
    """
    counted = {entry.device or _UNKNOWN_DEVICE for entry in _compared(capture)}
    compared = {device.name for device in capture.devices if _is_compared(device, capture.layers)}
    by_themselves = _without_requests(capture)
    devices = (counted - capture.diskstats.keys()) | (
        capture.diskstats.keys() - (counted - by_themselves) - compared
    )
    return {
        (device, op)
        for device in counted | capture.diskstats.keys()
        for op in _OPS
        if device in devices or (device in by_themselves and op not in ("read", "write"))
    }


def _is_compared(device: Device, layers: Sequence[str]) -> bool:
    """Whether the recording counts what diskstats does, so that nothing counted is a difference."""
    if device.has_requests is None:
        return device.nr_requests is not None and not device.stands_on
    if device.has_requests:
        return "request" in layers
    return "bio" in layers and not device.stands_on


def _agreement(
    sums: Counter[tuple[str, str, str]],
    device: str,
    op: str,
    *,
    is_comparable: bool,
    may_be_more: bool,
) -> Agreement:
    place = device, op
    ios, theirs = sums[*place, "counted_ios"], sums[*place, "diskstats_ios"]
    size, their_size = sums[*place, "counted_bytes"], sums[*place, "diskstats_bytes"]
    edge_ios, edge_bytes = sums[*place, "edge_ios"], sums[*place, "edge_bytes"]
    is_unbounded = sums[*place, "unbounded"] > 0
    least_size = 0 if is_unbounded else their_size - edge_bytes
    is_enough = ios >= theirs - edge_ios and size >= least_size
    is_more = ios > theirs or size > their_size
    return Agreement(
        device=device,
        op=op,
        counted_ios=ios,
        counted_bytes=size,
        diskstats_ios=theirs,
        diskstats_bytes=their_size,
        edge_ios=edge_ios,
        edge_bytes=None if is_unbounded else edge_bytes,
        agrees=(is_enough and not is_more)
        if is_comparable and not (may_be_more and is_enough and is_more)
        else None,
    )
