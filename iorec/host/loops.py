# SPDX-License-Identifier: GPL-2.0-only
"""Finds the files on which loop devices stand."""

import contextlib
import fcntl
import os
import stat
import struct
from pathlib import Path

from iorec.host.devices import dev_of_user, disk_of_dev, disks_of_file, mount_of

# include/uapi/linux/loop.h: loop_info64 begins with the device, inode and rdevice of the file.
_LOOP_GET_STATUS64 = 0x4C05
_INFO = struct.Struct("=QQQ")
_INFO_BYTES = 232


LoopFiles = dict[tuple[int, int], str]


def disks_below(folder: Path) -> list[str]:
    """The disks that hold the file of a loop device, by its folder in sysfs; none in memory.

    A path that leads to another file by now, or cannot be checked, is not believed.
    """
    with contextlib.suppress(OSError):
        path = _backing_path(folder)
        if _is_path_right(folder.name, path):
            return disks_of_file(path)
    with contextlib.suppress(OSError):
        device, _, rdevice = _status(folder.name)
        disk = disk_of_dev(dev_of_user(rdevice or device))
        return [] if disk is None else [disk]
    return []


def loop_backing(earlier: LoopFiles | None = None) -> LoopFiles:
    """The loop device of each backing file, by the kernel's dev_t of its file system and inode.

    That of a block device is its own number and 0. Several loop devices on one file are left out:
    it cannot be told whose I/O that is. Who may not ask a device believes what was known `earlier`
    of those that have not changed since; of any other it is only known where its file seems to be.
    """
    known = {name: key for key, name in (earlier or {}).items()}
    found: dict[tuple[int, int], list[str]] = {}
    for folder in Path("/sys/block").glob("loop*"):
        with contextlib.suppress(OSError):
            try:
                key = _backing(folder)
            except PermissionError:
                key = known.get(folder.name) or _seeming_backing(folder)
                if folder.name not in known:
                    found.setdefault(key, []).append("")
            found.setdefault(key, []).append(folder.name)
    return {key: names[0] for key, names in found.items() if len(names) == 1}


def _backing(folder: Path) -> tuple[int, int]:
    path = _backing_path(folder)
    if not _is_path_right(folder.name, path):
        raise FileNotFoundError(path)
    return _file_key(path)


def _seeming_backing(folder: Path) -> tuple[int, int]:
    return _file_key(_backing_path(folder))


def _file_key(path: Path) -> tuple[int, int]:
    info = path.stat()
    if stat.S_ISBLK(info.st_mode):
        return dev_of_user(info.st_rdev), 0
    mount = mount_of(path)  # of btrfs the number that stat gives is that of the subvolume
    return (dev_of_user(info.st_dev) if mount is None else mount.dev), info.st_ino


def _backing_path(folder: Path) -> Path:
    """OSError if the loop device has no file."""
    path = (folder / "loop" / "backing_file").read_bytes().removesuffix(b"\n")
    return Path(os.fsdecode(path))


def _is_path_right(name: str, path: Path) -> bool:
    """Not so where another file system is mounted over it, or by the path of a container."""
    device, inode, _ = _status(name)
    info = path.stat()
    return (dev_of_user(device), inode) == (dev_of_user(info.st_dev), info.st_ino)


def _status(name: str) -> tuple[int, int, int]:
    with Path("/dev", name).open("rb") as device:
        answer = fcntl.ioctl(device, _LOOP_GET_STATUS64, bytes(_INFO_BYTES))
    device_number, inode, rdevice = _INFO.unpack_from(answer)
    return device_number, inode, rdevice
