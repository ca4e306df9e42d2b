# SPDX-License-Identifier: GPL-2.0-only
"""Names block devices, and finds those that hold a file."""

import contextlib
import os
import stat
from pathlib import Path

from iorec.host.escape import escape_name
from iorec.host.mounts import Mount, mount_number, read_mounts

_PTY_MAJOR = 136
SECTOR_BYTES = 512  # the unit of sysfs and diskstats, whatever the device's block size


def dev_of_numbers(text: str) -> int:
    """The kernel's dev_t of `MAJOR:MINOR`: 12 bits and 20 bits."""
    major, minor = text.split(":")
    return int(major) << 20 | int(minor)


def dev_of_user(dev: int) -> int:
    """The kernel's dev_t of a device number as stat(2) gives it."""
    return os.major(dev) << 20 | os.minor(dev)


def numbers_of_dev(dev: int) -> str:
    """`MAJOR:MINOR`."""
    return f"{dev >> 20}:{dev & 0xFFFFF}"


def disk_name(folder_name: str) -> str:
    """What a disk or partition is called, by its folder in sysfs: a slash stands there as `!`."""
    return escape_name(os.fsencode(folder_name)).replace("!", "/")


def disk_of_dev(dev: int) -> str | None:
    """The disk with that number, or with a partition that has it."""
    folder = _folder_of_dev(dev)
    if folder is None:
        return None
    return disk_name((folder.parent if (folder / "partition").exists() else folder).name)


def block_device_path(dev: int) -> str | None:
    """The file of a disk or partition in /dev; None if it is gone."""
    folder = _folder_of_dev(dev)
    return None if folder is None else f"/dev/{disk_name(folder.name)}"


def char_device_path(dev: int) -> str | None:
    """The file of a character device in /dev; None if it has none.

    Terminals of the major 136 have files by their minor (Documentation/admin-guide/devices.txt).
    """
    if dev >> 20 == _PTY_MAJOR:
        return f"/dev/pts/{dev & 0xFFFFF}"
    try:
        lines = Path(f"/sys/dev/char/{numbers_of_dev(dev)}/uevent").read_bytes().splitlines()
    except OSError:
        return None
    names = [line.removeprefix(b"DEVNAME=") for line in lines if line.startswith(b"DEVNAME=")]
    return f"/dev/{escape_name(names[0])}" if names else None


def _folder_of_dev(dev: int) -> Path | None:
    link = Path(f"/sys/dev/block/{numbers_of_dev(dev)}")
    try:
        return link.parent / link.readlink()
    except OSError:
        return None


def disk_of_file(path: Path) -> str | None:
    """The disk that holds a file or folder, the first one of several; None if there is none."""
    disks = disks_of_file(path)
    return disks[0] if disks else None


def disks_of_file(path: Path) -> list[str]:
    """The disks that hold a file or folder, or are the block device that it is; none in memory.

    Raises OSError if it cannot be reached.
    """
    info = path.stat()
    if stat.S_ISBLK(info.st_mode):
        devs = [dev_of_user(info.st_rdev)]
    else:
        mount = mount_of(path)
        devs = _devs_of_mount(mount) if mount is not None else [dev_of_user(info.st_dev)]
    disks = {disk for dev in devs if (disk := disk_of_dev(dev)) is not None}
    return sorted(disks)


def mount_of(path: Path) -> Mount | None:
    """The mount in which a file is; None if it went meanwhile. Raises OSError as open(2) does."""
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        number = mount_number(fd)
    finally:
        os.close(fd)
    return next((mount for mount in read_mounts() if mount.number == number), None)


def _devs_of_mount(mount: Mount) -> list[int]:
    """Those of btrfs are not in its own number, and may be several."""
    if mount.dev >> 20:
        return [mount.dev]
    try:
        source = mount.source.stat()
    except OSError:  # not a device, but a share, a pool or nothing at all
        return []
    if not stat.S_ISBLK(source.st_mode):
        return []
    devs = [dev_of_user(source.st_rdev)]
    if mount.kind == "btrfs" and (folder := _folder_of_dev(devs[0])) is not None:
        for path in Path("/sys/fs/btrfs").glob("*/devices"):
            if (path / folder.name).exists():
                numbers = [(member / "dev").read_text() for member in path.iterdir()]
                devs = [dev_of_numbers(text) for text in numbers]
    return devs


def read_in_flight() -> int:
    """I/Os in flight on all devices now, as the kernel counts them."""
    return sum(sum(_read_in_flight(folder)) for folder in Path("/sys/block").glob("*"))


def read_in_flight_of(disk: str) -> list[int]:
    """Its reads and writes in flight now, as the kernel counts them; empty if it is gone."""
    return _read_in_flight(Path("/sys/block", disk.replace("/", "!")))


def _read_in_flight(folder: Path) -> list[int]:
    with contextlib.suppress(OSError, ValueError):
        return [int(count) for count in (folder / "inflight").read_text().split()]
    return []


def read_request_capacity() -> int:
    """How many requests the queues of all devices can hold together."""
    capacity = 0
    for queue in Path("/sys/block").glob("*/queue"):
        with contextlib.suppress(OSError, ValueError):
            hardware_queues = sum(1 for _ in (queue.parent / "mq").glob("*")) or 1
            capacity += int((queue / "nr_requests").read_text()) * hardware_queues
    return capacity
