# SPDX-License-Identifier: GPL-2.0-only
"""Finds what stands against writing to a device or file: who uses it, and what it holds."""

import contextlib
import errno
import os
import re
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

from analyze.escape import escape_for_terminal
from iorec.host.devices import dev_of_numbers, dev_of_user, disk_name
from iorec.host.loops import disks_below
from iorec.host.mounts import read_mounts

_MOST_NAMED = 3
_NOTHING_FOUND, _AMBIVALENT = 2, 8  # blkid(8)
_BLKID_PATH = "/usr/sbin:/sbin:/usr/bin:/bin"


def find_users(path: Path) -> list[str]:
    """Who uses it, of all processes and mounts that can be seen; needs root to see all.

    The kernel says of a mount, also in another namespace, of swap and of stacked devices that it
    is busy; it does not of a loop device that stands on it, nor of a process that has it open.
    """
    info = path.stat()
    if not stat.S_ISBLK(info.st_mode):
        return [*_loops_on_file(info), *_openers({(info.st_dev, info.st_ino)}, is_device=False)]
    family = _family(dev_of_user(info.st_rdev))
    devs = {(os.makedev(dev >> 20, dev & 0xFFFFF), 0) for dev in family}
    return [
        *_holders(family),
        *_mounts(family),
        *_swaps(family),
        *_loops_on(set(family.values())),
        *_openers(devs, is_device=True),
    ]


def find_signatures(path: Path, fd: int) -> list[str]:
    """What blkid finds on it; that it cannot be asked is a finding, too, and any data of a file."""
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return _data_of_file(fd)
    program = shutil.which("blkid", path=_BLKID_PATH)
    if program is None:
        return ["blkid is not installed, which would tell whether it holds data"]
    done = subprocess.run(
        [program, "-p", "-o", "export", str(path)],
        capture_output=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
    )
    if done.returncode == _NOTHING_FOUND:
        return []
    if done.returncode == _AMBIVALENT:
        return ["it holds several signatures that contradict each other"]
    if done.returncode:
        return [f"blkid cannot tell what it holds (status {done.returncode})"]
    text = done.stdout.decode(errors="backslashreplace")
    pairs = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    known = [pairs[key] for key in ("TYPE", "PTTYPE", "LABEL", "UUID", "PTUUID") if key in pairs]
    return [f"it holds {escape_for_terminal(' '.join(known)) or 'something that blkid knows'}"]


def _data_of_file(fd: int) -> list[str]:
    """A file that never held anything has no data (lseek(2))."""
    try:
        os.lseek(fd, 0, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return []
        raise
    return ["it is a file with data in it"]


def is_partition(dev: int) -> bool:
    """Whether the kernel's dev_t is that of a partition."""
    return (_folder(dev) / "partition").exists()


def _folder(dev: int) -> Path:
    return Path(f"/sys/dev/block/{dev >> 20}:{dev & 0xFFFFF}").resolve()


def _family(dev: int) -> dict[int, str]:
    """A disk and its partitions, by the kernel's dev_t."""
    folder = _folder(dev)
    found = {dev: disk_name(folder.name)}
    for path in folder.glob("*/partition"):
        with contextlib.suppress(OSError, ValueError):
            number = dev_of_numbers((path.parent / "dev").read_text())
            found[number] = disk_name(path.parent.name)
    return found


def _holders(family: dict[int, str]) -> Iterator[str]:
    for dev, name in family.items():
        names = sorted(disk_name(path.name) for path in (_folder(dev) / "holders").glob("*"))
        if names:
            yield f"{name} is part of {_first(names)}"


def _mounts(family: dict[int, str]) -> Iterator[str]:
    for mount in read_mounts():
        if mount.dev in family:
            yield f"{family[mount.dev]} is mounted on {mount.place}"


def _swaps(family: dict[int, str]) -> Iterator[str]:
    for line in Path("/proc/swaps").read_text().splitlines()[1:]:
        with contextlib.suppress(OSError):
            info = Path(line.split()[0]).stat()
            if stat.S_ISBLK(info.st_mode) and dev_of_user(info.st_rdev) in family:
                yield f"{family[dev_of_user(info.st_rdev)]} is swap"


def _loops_on(names: set[str]) -> Iterator[str]:
    for folder in sorted(Path("/sys/block").glob("loop*")):
        if (folder / "loop").exists() and not names.isdisjoint(disks_below(folder)):
            yield f"{folder.name} stands on it"


def _loops_on_file(info: os.stat_result) -> Iterator[str]:
    for path in sorted(Path("/sys/block").glob("loop*/loop/backing_file")):
        with contextlib.suppress(OSError):
            backing = Path(os.fsdecode(path.read_bytes().removesuffix(b"\n"))).stat()
            if os.path.samestat(backing, info):
                yield f"{path.parts[3]} stands on it"


def _openers(wanted: set[tuple[int, int]], *, is_device: bool) -> Iterator[str]:
    """Processes that have one of the files open, beside this one."""
    users: dict[str, str] = {}
    for process in Path("/proc").glob("[0-9]*"):
        if process.name == str(os.getpid()):
            continue
        with contextlib.suppress(OSError):
            for fd in (process / "fd").iterdir():
                info = fd.stat()
                key = (info.st_rdev, 0) if is_device else (info.st_dev, info.st_ino)
                is_kind = stat.S_ISBLK(info.st_mode) == is_device
                if is_kind and key in wanted:
                    users[process.name] = f"{_comm(process)} ({process.name}){_mode(process, fd)}"
    if users:
        yield f"open by {_first(list(users.values()))}"


def _comm(process: Path) -> str:
    return escape_for_terminal((process / "comm").read_text(errors="replace").strip())


def _mode(process: Path, fd: Path) -> str:
    flags = re.search(r"flags:\s+(\d+)", (process / "fdinfo" / fd.name).read_text())
    return " for writing" if flags and int(flags[1], 8) & os.O_ACCMODE else ""


def _first(names: list[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + more
