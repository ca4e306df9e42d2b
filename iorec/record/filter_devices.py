# SPDX-License-Identifier: GPL-2.0-only
"""Finds the block devices that `-d` names: by name, glob, node or a place in a file system."""

import fnmatch
import os
import stat
from pathlib import Path

from analyze.errors import IorecError
from iorec.host.devices import dev_of_numbers, mount_of
from iorec.kernel.comm_glob import is_glob

_CLASS = Path("/sys/class/block")


def resolve_device(wanted: str) -> list[str]:
    """Names of disks and partitions, those that are there now; IorecError if there is none."""
    place = _status(wanted) if wanted.startswith("/") else None
    if place is not None:
        is_node = stat.S_ISBLK(place.st_mode)
        name = _name_of(place.st_rdev if is_node else place.st_dev)
        return [name] if name else _mounted_from(wanted)
    if is_glob(wanted):
        return _matching(wanted)
    name = wanted.removeprefix("/dev/")
    if not (_CLASS / name.replace("/", "!") / "dev").exists():
        raise _none(wanted)
    return [name]


def device_key(name: str) -> tuple[int, int | None]:
    """The device number of the disk, and the number of the partition if it is one."""
    folder = _CLASS / name.replace("/", "!")
    try:
        if not (folder / "partition").exists():
            return dev_of_numbers((folder / "dev").read_text()), None
        disk = folder.resolve().parent
        return dev_of_numbers((disk / "dev").read_text()), int((folder / "partition").read_text())
    except OSError as error:
        raise _none(name) from error


def _matching(glob: str) -> list[str]:
    """Without partitions whose disk matches, too."""
    pattern = glob.removeprefix("/dev/")
    names = [path.parent.name.replace("!", "/") for path in _CLASS.glob("*/dev")]
    matching = {name for name in names if fnmatch.fnmatchcase(name, pattern)}
    if not matching:
        raise _none(glob)
    return sorted(name for name in matching if _disk_of(name) not in matching - {name})


def _mounted_from(wanted: str) -> list[str]:
    """The devices of a file system whose number is not that of a device, such as btrfs."""
    mount = mount_of(Path(wanted))
    source = "nothing" if mount is None else str(mount.source)
    place = _status(source) if source.startswith("/") else None
    name = _name_of(place.st_rdev) if place and stat.S_ISBLK(place.st_mode) else None
    if name is None:
        raise IorecError(
            f"{wanted} is on no block device, but on {source}",
            "-d takes a disk, a partition, a glob of them, or a place on one: see lsblk",
        )
    entry = name.replace("/", "!")
    for folder in Path("/sys/fs/btrfs").glob(f"*/devices/{entry}"):
        return sorted(path.name.replace("!", "/") for path in folder.parent.iterdir())
    return [name]


def _status(path: str) -> os.stat_result | None:
    try:
        return Path(path).stat()
    except (OSError, ValueError):
        return None


def _name_of(dev: int) -> str | None:
    link = Path(f"/sys/dev/block/{os.major(dev)}:{os.minor(dev)}")
    return link.resolve().name.replace("!", "/") if link.exists() else None


def _disk_of(name: str) -> str:
    folder = _CLASS / name.replace("/", "!")
    disk = folder.resolve().parent if (folder / "partition").exists() else folder
    return disk.name.replace("!", "/")


def _none(wanted: str) -> IorecError:
    known = ", ".join(sorted(path.name.replace("!", "/") for path in Path("/sys/block").iterdir()))
    return IorecError(f"no block device {wanted}", f"there are: {known}")
