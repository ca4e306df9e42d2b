# SPDX-License-Identifier: GPL-2.0-only
"""Reads what the kernel counts for each disk, and says what it counted while recording."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

from analyze.metadata import Diskstats
from iorec.host.devices import SECTOR_BYTES, dev_of_numbers, disk_name

# Positions in /sys/block/*/stat, which has the numbers of /proc/diskstats without a name among them
# (Documentation/admin-guide/iostats.rst, three fields less).
_FIELDS = {"read": (0, 2), "write": (4, 6), "discard": (11, 13), "flush": (15, None)}
_LARGEST = 2**63 - 1


@dataclass(frozen=True)
class OpStats:
    """I/Os that ended and their bytes, of one device and diskstats group."""

    ios: int
    bytes: int


@dataclass(frozen=True)
class DiskCounters:
    """The counters of a disk by group: read, write, discard, flush.

    `identity` is that of the kernel's own object: a disk that goes and comes back has another one,
    and counts from 0. A disk whose counting is switched off (queue/iostats) has no groups.
    """

    identity: int
    groups: dict[str, OpStats]


DiskStats = dict[str, DiskCounters]
StatPair = tuple[DiskStats, DiskStats]


def read_diskstats(disks: Path = Path("/sys/block")) -> DiskStats:
    """What the kernel has counted for each whole disk."""
    found: dict[str, tuple[Path, int, bool]] = {}
    for folder in disks.iterdir():
        with contextlib.suppress(OSError):
            # Numbers of sysfs folders are given one after the other, never twice.
            found[disk_name(folder.name)] = folder, folder.stat().st_ino, _is_counted(folder)
    stats: DiskStats = {}
    for name, (folder, identity, is_counted) in found.items():
        with contextlib.suppress(OSError, ValueError):  # it is gone meanwhile
            groups = _read_groups(folder) if is_counted else {}
            stats[name] = DiskCounters(identity, groups)
    return stats


def read_idle_disks() -> set[int]:
    """The numbers (dev_t) of the disks with requests for which the kernel counts none in flight.

    It counts those that were handed to the driver, but for flushes (blk_mq_in_flight_rw).
    """
    idle = set()
    for folder in Path("/sys/block").iterdir():
        with contextlib.suppress(OSError, ValueError):
            has_count = (folder / "mq").exists() and _is_counted(folder)
            if has_count and not sum(map(int, (folder / "inflight").read_text().split())):
                idle.add(dev_of_numbers((folder / "dev").read_text()))
    return idle


def _is_counted(folder: Path) -> bool:
    """Also of devices without requests, where the switch of most drivers means nothing."""
    if not (folder / "mq").exists():
        return True
    try:
        return (folder / "queue" / "iostats").read_bytes().strip() != b"0"
    except OSError:
        return True


def _read_groups(folder: Path) -> dict[str, OpStats]:
    values = list(map(int, (folder / "stat").read_bytes().split()))

    def value(place: int | None) -> int:
        return values[place] if place is not None and place < len(values) else 0

    return {
        group: OpStats(value(ios), value(sectors) * SECTOR_BYTES)
        for group, (ios, sectors) in _FIELDS.items()
    }


def diskstats_delta(before: StatPair, after: StatPair) -> dict[str, dict[str, Diskstats]]:
    """What diskstats counted between the outermost of four readings.

    The pairs are readings just before and just after the moment in which recording was switched on
    and off; `edge_ios` and `edge_bytes` of the counts ended within a pair, so that it is open
    whether they count. Left out are devices that were not the same, and counted, all the time, and
    those whose counters went back.
    """
    readings = (*before, *after)
    delta = {}
    for device in sorted(set.intersection(*(set(reading) for reading in readings))):
        counters = [reading[device] for reading in readings]
        if len({disk.identity for disk in counters}) > 1:
            continue
        groups = {
            group: grown
            for group in counters[0].groups
            if (grown := _grown([disk.groups.get(group) for disk in counters])) is not None
        }
        is_whole = len(groups) == len(counters[0].groups)
        if is_whole and any(grown.ios for grown in groups.values()):
            delta[device] = groups
    return delta


def _grown(values: list[OpStats | None]) -> Diskstats | None:
    """None if they were not all read, or not one after the other."""
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return None
    ios, sizes = [value.ios for value in known], [value.bytes for value in known]
    if ios != sorted(ios) or sizes != sorted(sizes):
        return None
    grown, grown_bytes = ios[3] - ios[0], sizes[3] - sizes[0]
    if max(grown, grown_bytes) > _LARGEST:
        return None
    return Diskstats(
        ios=grown,
        bytes=grown_bytes,
        edge_ios=grown - (ios[2] - ios[1]),
        edge_bytes=grown_bytes - (sizes[2] - sizes[1]),
    )
