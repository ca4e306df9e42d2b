# SPDX-License-Identifier: GPL-2.0-only
"""Narrows a recording's account to what it was asked for: its filter is part of the question."""

from dataclasses import replace

from analyze.metadata import Counts, DeviceCounts, Metadata


def wanted_devices(metadata: Metadata) -> frozenset[str] | None:
    """The disks that were asked for by name; None for all, also where a name stands for no disk."""
    disks = {device.name: device.name for device in metadata.devices}
    if metadata.counts is not None:
        disks |= {entry.device: entry.device for entry in metadata.counts.devices if entry.device}
    disks |= {part.name: disk.name for disk in metadata.devices for part in disk.partitions}
    typed = metadata.filters.resolved_device or metadata.filters.device
    wanted = {disks.get(name.removeprefix("/dev/")) for name in typed}
    return frozenset(filter(None, wanted)) if wanted and None not in wanted else None


def narrow_to_filter(metadata: Metadata) -> Metadata:
    """The metadata without the account of devices that were not asked for.

    Filters are decided before an I/O takes room in the ring, so what was lost of other devices are
    completions that were not seen. Of an I/O whose start was not seen no more is known than that
    there was none for it at its end, as of one that began before.
    """
    wanted, counts = wanted_devices(metadata), metadata.counts
    if wanted is None or counts is None:
        return metadata
    devices = tuple(entry for entry in counts.devices if _is_of(entry.device, wanted))
    lost = _lost_of(counts, devices)
    return replace(
        metadata,
        devices=tuple(device for device in metadata.devices if device.name in wanted),
        diskstats={name: ops for name, ops in metadata.diskstats.items() if name in wanted},
        counts=replace(
            counts,
            layers=counts.by_layer,  # which must close, whatever of it was asked for
            devices=devices,
            events=tuple(event for event in counts.events if _is_of(event.device, wanted)),
            filtered=sum(entry.filtered for entry in devices),
            began_before=min(counts.began_before, sum(entry.began_before for entry in devices)),
            lost=lost,
            gaps=tuple(gap for gap in counts.gaps if lost.get(gap.cause)),
        ),
    )


def _is_of(device: str | None, wanted: frozenset[str]) -> bool:
    """An unknown device may be one of them."""
    return device is None or device in wanted


def _lost_of(counts: Counts, devices: tuple[DeviceCounts, ...]) -> dict[str, int]:
    """The losses by cause without those of other devices."""
    elsewhere = sum(entry.lost for entry in counts.devices) - sum(entry.lost for entry in devices)
    unmatched = sum(entry.began_before for entry in devices)
    lost = dict(counts.lost)
    for cause in ("table_full", "missed_start"):
        lost[cause] = min(lost.get(cause, 0), unmatched)
    lost["missed_completion"] = max(lost.get("missed_completion", 0) - elsewhere, 0)
    return lost
