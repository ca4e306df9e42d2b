# SPDX-License-Identifier: GPL-2.0-only
"""Describes block devices as the capture's metadata lists them."""

import contextlib
from pathlib import Path

from analyze.metadata import Device, Partition
from iorec.host.devices import SECTOR_BYTES, disk_name
from iorec.host.escape import escape_name
from iorec.host.loops import disks_below

_LARGEST = 2**63 - 1


def describe_devices() -> list[Device]:
    """Every disk of the machine."""
    folders = sorted(Path("/sys/block").iterdir())
    described = map(describe_device, folders)
    return [found for found in described if found is not None]


def describe_device(folder: Path) -> Device | None:
    """The disk with that folder in sysfs; None if it is gone, or has no number."""
    numbers = _text(folder / "dev")
    if numbers is None:
        return None
    try:
        major, minor = map(int, numbers.split(":"))
    except ValueError:
        return None
    schedulers = _text(folder / "queue/scheduler") or ""
    chosen = [word.strip("[]") for word in schedulers.split() if word.startswith("[")]
    return Device(
        name=disk_name(folder.name),
        major=major,
        minor=minor,
        model=_text(folder / "device/model"),
        size_bytes=_number(folder / "size", SECTOR_BYTES),
        logical_block_size=_number(folder / "queue/logical_block_size"),
        rotational=_text(folder / "queue/rotational") == "1",
        scheduler=chosen[0] if chosen else None,
        nr_requests=_number(folder / "queue/nr_requests"),
        has_requests=(folder / "mq").exists(),
        partitions=_describe_partitions(folder),
        stands_on=tuple(_stands_on(folder)),
    )


def gone_device(name: str, dev: int) -> Device:
    """What is known of a device that went before it could be described."""
    return Device(
        name=name,
        major=dev >> 20,
        minor=dev & 0xFFFFF,
        **dict.fromkeys(("model", "size_bytes", "logical_block_size", "rotational", "scheduler")),
        nr_requests=None,
        partitions=(),
        stands_on=(),
    )


def _stands_on(folder: Path) -> list[str]:
    if (folder / "loop").exists():
        return disks_below(folder)
    return sorted(disk_name(path.name) for path in folder.glob("slaves/*"))


def _describe_partitions(folder: Path) -> tuple[Partition, ...]:
    partitions = []
    for path in folder.glob("*/partition"):
        start, size = (_number(path.parent / name, SECTOR_BYTES) for name in ("start", "size"))
        number = _number(path)
        if number is not None and start is not None and size is not None:
            partitions.append(Partition(disk_name(path.parent.name), number, start, size))
    return tuple(sorted(partitions, key=lambda partition: partition.number))


def _text(path: Path) -> str | None:
    """Drivers put any bytes there."""
    try:
        return escape_name(path.read_bytes().strip(b" \n\0"))
    except OSError:
        return None


def _number(path: Path, unit: int = 1) -> int | None:
    """A count of `unit` each; None if there is none, or more than a capture can hold."""
    with contextlib.suppress(ValueError):
        number = int(_text(path) or "") * unit
        return number if 0 <= number <= _LARGEST else None
    return None
