"""Names and describes the machine's block devices and reads what the kernel counts for them."""

import contextlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_SECTOR_BYTES = 512  # the unit of sysfs and diskstats, whatever the device's block size

# Positions in a line of /proc/diskstats (Documentation/admin-guide/iostats.rst).
_DISKSTATS_FIELDS = {"read": (3, 5), "write": (7, 9), "discard": (14, 16), "flush": (18, None)}


@dataclass(frozen=True)
class OpStats:
    """I/Os that ended and their bytes, of one device and diskstats group."""

    ios: int
    bytes: int


DiskStats = dict[str, dict[str, OpStats]]


def dev_of_numbers(text: str) -> int:
    """The kernel's dev_t of `MAJOR:MINOR`: 12 bits and 20 bits."""
    major, minor = text.split(":")
    return int(major) << 20 | int(minor)


def disk_of_file(path: Path) -> str | None:
    """The disk that holds a file or folder; None if it is not on a block device."""
    device = path.stat().st_dev
    link = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}")
    if not link.exists():
        return None
    folder = link.resolve()
    return (folder.parent if (folder / "partition").exists() else folder).name.replace("!", "/")


def read_diskstats() -> DiskStats:
    """What the kernel has counted for each whole disk, by group: read, write, discard, flush.

    A disk whose counting is switched off (queue/iostats) has no groups.
    """
    folders = Path("/sys/block").iterdir()
    is_counted = {path.name.replace("!", "/"): _has_iostats(path) for path in folders}
    stats: DiskStats = {name: {} for name in is_counted}
    for line in Path("/proc/diskstats").read_text().splitlines():
        fields = line.split()
        if is_counted.get(fields[2]):
            stats[fields[2]] = {
                group: OpStats(
                    int(fields[ios]) if ios < len(fields) else 0,
                    int(fields[sectors]) * _SECTOR_BYTES
                    if sectors is not None and sectors < len(fields)
                    else 0,
                )
                for group, (ios, sectors) in _DISKSTATS_FIELDS.items()
            }
    return stats


def _has_iostats(folder: Path) -> bool:
    """Also of devices without requests, where the switch of most drivers means nothing."""
    if not (folder / "mq").exists():
        return True
    try:
        return (folder / "queue" / "iostats").read_text().strip() != "0"
    except OSError:
        return True


def read_in_flight() -> int:
    """I/Os in flight on all devices now, as the kernel counts them."""
    count = 0
    for path in Path("/sys/block").glob("*/inflight"):
        with contextlib.suppress(OSError):
            count += sum(map(int, path.read_text().split()))
    return count


def read_idle_disks() -> set[int]:
    """The numbers (dev_t) of the disks with requests of which the kernel counts none in flight.

    It counts those that were handed to the driver, but for flushes (blk_mq_in_flight_rw).
    """
    idle = set()
    for folder in Path("/sys/block").iterdir():
        with contextlib.suppress(OSError, ValueError):
            is_counted = (folder / "mq").exists() and _has_iostats(folder)
            if is_counted and not sum(map(int, (folder / "inflight").read_text().split())):
                idle.add(dev_of_numbers((folder / "dev").read_text()))
    return idle


def read_request_capacity() -> int:
    """How many requests the queues of all devices can hold together."""
    capacity = 0
    for queue in Path("/sys/block").glob("*/queue"):
        with contextlib.suppress(OSError, ValueError):
            hardware_queues = sum(1 for _ in (queue.parent / "mq").glob("*")) or 1
            capacity += int((queue / "nr_requests").read_text()) * hardware_queues
    return capacity


def describe_devices() -> list[dict[str, Any]]:
    """Every block device of the machine as the capture's metadata lists it."""
    folders = sorted(Path("/sys/block").iterdir())
    return [d for folder in folders if (d := _describe(folder)) is not None]


def _describe(folder: Path) -> dict[str, Any] | None:
    def text(name: str) -> str | None:
        try:
            return (folder / name).read_text().strip()
        except OSError:
            return None

    numbers = text("dev")
    if numbers is None:
        return None
    major, minor = map(int, numbers.split(":"))
    schedulers = text("queue/scheduler") or ""
    chosen = [word.strip("[]") for word in schedulers.split() if word.startswith("[")]
    return {
        "name": folder.name.replace("!", "/"),
        "major": major,
        "minor": minor,
        "model": text("device/model"),
        "size_bytes": int(text("size") or 0) * _SECTOR_BYTES,
        "logical_block_size": int(text("queue/logical_block_size") or _SECTOR_BYTES),
        "rotational": text("queue/rotational") == "1",
        "scheduler": chosen[0] if chosen else None,
        "nr_requests": int(text("queue/nr_requests") or 0),
        "has_requests": (folder / "mq").exists(),
        "partitions": _describe_partitions(folder),
        "stands_on": sorted(path.name.replace("!", "/") for path in folder.glob("slaves/*")),
    }


def _describe_partitions(folder: Path) -> list[dict[str, Any]]:
    partitions = []
    for path in folder.glob("*/partition"):
        with contextlib.suppress(OSError):
            partitions.append(
                {
                    "name": path.parent.name.replace("!", "/"),
                    "number": int(path.read_text()),
                    "start_bytes": int((path.parent / "start").read_text()) * _SECTOR_BYTES,
                    "size_bytes": int((path.parent / "size").read_text()) * _SECTOR_BYTES,
                }
            )
    return sorted(partitions, key=lambda partition: int(partition["number"]))


@dataclass
class DeviceNames:
    """Resolves device numbers to names, also for devices that come or go while recording."""

    _known: dict[tuple[int, int], tuple[str | None, str | None]] = field(default_factory=dict)
    _fresh: set[tuple[int, int]] = field(default_factory=set)

    def expire(self) -> None:
        """Makes every name be looked up once more: the kernel reuses numbers."""
        self._fresh.clear()

    def resolve(self, dev: int, partno: int) -> tuple[str | None, str | None]:
        """Names of the disk and of the partition (None: none, or a queue without a disk).

        A device that went before it could be looked up is called by its numbers.
        """
        key = (dev, partno)
        if key not in self._fresh:
            self._fresh.add(key)
            names = _look_up(dev, partno)
            if names is not None or key not in self._known:
                self._known[key] = names or _numbers(dev, partno)
        return self._known[key]


def _look_up(dev: int, partno: int) -> tuple[str | None, str | None] | None:
    if dev == 0:
        return None, None
    folder = Path(f"/sys/dev/block/{dev >> 20}:{dev & 0xFFFFF}").resolve()
    if not folder.exists():
        return None
    partition = None
    if partno:
        for path in folder.glob("*/partition"):
            with contextlib.suppress(OSError):
                if int(path.read_text()) == partno:
                    partition = path.parent.name.replace("!", "/")
    return folder.name.replace("!", "/"), partition


def _numbers(dev: int, partno: int) -> tuple[str, str | None]:
    name = f"{dev >> 20}:{dev & 0xFFFFF}"
    return name, f"{name}p{partno}" if partno else None
