# SPDX-License-Identifier: GPL-2.0-only
"""Devices with a file system, which come and go under the same name with other files."""

import ctypes
import fcntl
import itertools
import os
import random
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from tests.soak.names import component, deep_folder
from tests.truth.claims import Workers, reading, spawning, writing
from tests.truth.disk import Disk, escaped, survey, write_files

_LIBC = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNS = 0x20000
_MS_NOATIME, _MS_REC, _MS_PRIVATE = 0x400, 0x4000, 0x40000
_LOOP_CTL_ADD, _LOOP_CTL_REMOVE = 0x4C80, 0x4C81
_HOT_ADD = Path("/sys/class/zram-control/hot_add")
_FILES_PER_FOLDER, _DEEP_PER_FOLDER = 500, 5
_PAUSES_S = (0.0, 0.0, 0.0005, 0.01, 0.1)
_PAGES = (1, 2, 3, 4)
_FIRST_RENAMED = 1 << 20  # or a file could get the name of another one


def hide_mounts() -> None:
    """Gives this process mounts of its own, which end with it."""
    _check(_LIBC.unshare(_CLONE_NEWNS), "unshare")
    _check(_LIBC.mount(None, b"/", None, _MS_REC | _MS_PRIVATE, None), "/")


def _check(status: int, what: object) -> None:
    if status:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(what))


class Device(ABC):
    """A block device; `remove` leaves nothing of it, and it may be added again."""

    name: str

    @abstractmethod
    def add(self, size_bytes: int) -> None: ...

    @abstractmethod
    def remove(self) -> None: ...


class LoopDevice(Device):
    """A loop device on a file in a folder."""

    def __init__(self, folder: Path, first_number: int) -> None:
        """Takes a number that nobody has, from the first one on."""
        numbers = itertools.count(first_number)
        number = next(n for n in numbers if not Path(f"/sys/block/loop{n}").exists())
        self.name = f"loop{number}"
        self._number = number
        self._backing = folder / f"{self.name}.backing"

    def add(self, size_bytes: int) -> None:
        self._control(_LOOP_CTL_ADD)
        with self._backing.open("wb") as file:
            file.truncate(size_bytes)
        subprocess.run(["losetup", f"/dev/{self.name}", self._backing], check=True)
        queue = Path(f"/sys/block/{self.name}/queue")
        (queue / "scheduler").write_text("none")
        (queue / "nomerges").write_text("2")

    def remove(self) -> None:
        self._backing.unlink(missing_ok=True)
        subprocess.run(["losetup", "-d", f"/dev/{self.name}"], check=False)
        _persist(lambda: self._control(_LOOP_CTL_REMOVE))

    def _control(self, operation: int) -> None:
        with Path("/dev/loop-control").open("rb") as control:
            fcntl.ioctl(control, operation, self._number)


class ZramDevice(Device):
    """A block device without requests, in memory."""

    def add(self, size_bytes: int) -> None:
        self.name = f"zram{_HOT_ADD.read_text().strip()}"
        Path(f"/sys/block/{self.name}/disksize").write_text(str(size_bytes))

    def remove(self) -> None:
        hot_remove = _HOT_ADD.with_name("hot_remove")
        _persist(lambda: hot_remove.write_text(self.name.removeprefix("zram")))


def _persist(attempt: Callable[[], object]) -> None:
    """Tries until nobody has the device open any more, 5 s at most."""
    deadline = time.monotonic() + 5
    while True:
        try:
            attempt()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.05)


class Crowd:
    """A device, its file system, and those who work on its files, from `come` to `go`."""

    def __init__(self, device: Device, workers: Workers, dice: random.Random) -> None:
        self.device = device
        self.disks: list[Disk] = []  # all that there were; the last one may still be there
        self._workers = workers
        self._dice = dice
        self._undo = ExitStack()
        self._paths: list[Path] = []

    def come(self, count: int, size_bytes: int, pool: int, cgroups: Sequence[Path]) -> int:
        """Makes `count` files and sets workers to work; returns the first pool that is free."""
        self.device.add(size_bytes)
        self._undo.callback(self.device.remove)
        mount = self._workers.folder / component(self._dice, pool)
        mount.mkdir()
        self._undo.callback(mount.rmdir)
        _make_file_system(self.device, mount, inode_count=2 * count + 2000)
        self._undo.callback(_unmount, mount)
        paths = self._paths = self._make_files(mount, count)
        parts = [int(count * share) for share in (0, 0.4, 0.8, 0.85, 1)]
        one, other, written, brief = (paths[a:b] for a, b in itertools.pairwise(parts))
        singles = [(pool + 3 + place, [path]) for place, path in enumerate(brief)]
        pools = [(pool, one), (pool + 1, other), (pool + 2, written), *singles]
        disk = survey(self.device.name, pools)
        disk.from_ns = time.monotonic_ns()
        self.disks.append(disk)
        self._undo.callback(self._close_disk)
        seed = self._dice.randrange(1 << 32)
        readers = [reading(one, pool, seed, _PAUSES_S), reading(other, pool + 1, ~seed, _PAUSES_S)]
        spawner = spawning(brief, pool + 3, seed, _PAUSES_S, count=1 << 30, cgroups=cgroups)
        for jobs in readers, [writing(written, pool + 2, seed, _PAUSES_S)], [spawner]:
            self._undo.callback(self._workers.stop, [self._workers.start(jobs)])
        return pool + 3 + len(brief)

    def go(self) -> None:
        """Ends all work and takes the device away."""
        self._undo.close()

    def _close_disk(self) -> None:
        self.disks[-1].to_ns = time.monotonic_ns()
        self._paths = []

    def _make_files(self, mount: Path, count: int) -> list[Path]:
        deep = deep_folder(self._dice, mount)
        paths = []
        for first in range(0, count, _FILES_PER_FOLDER):
            folder = mount / component(self._dice, first)
            folder.mkdir()
            for number in range(first, min(first + _FILES_PER_FOLDER, count)):
                place = deep if number % _FILES_PER_FOLDER < _DEEP_PER_FOLDER else folder
                paths.append(place / component(self._dice, number))
        self._dice.shuffle(paths)
        write_files(paths, self._dice, _PAGES)
        return paths

    def rename_a_file(self, number: int) -> None:
        """Gives one of the files another name; the earlier one is as true for a while."""
        if not self._paths:
            return
        place = self._dice.randrange(len(self._paths))
        path = self._paths[place]
        with suppress(OSError):  # too long
            name = component(self._dice, _FIRST_RENAMED + number)
            self._paths[place] = path.rename(path.with_name(name))
            self.disks[-1].names[place].add(escaped(os.fsencode(self._paths[place])))

    def switch_statistics(self) -> None:
        """Switches on or off that the kernel counts the device's I/Os."""
        if self._paths:
            switch = Path(f"/sys/block/{self.device.name}/queue/iostats")
            switch.write_text(self._dice.choice("01"))


def _make_file_system(device: Device, mount: Path, inode_count: int) -> None:
    path = f"/dev/{device.name}"
    options = ("-b", "4096", "-N", str(inode_count), "-E", "lazy_itable_init=0,nodiscard")
    subprocess.run(["mkfs.ext4", "-q", *options, path], check=True)
    arguments = path.encode(), os.fsencode(mount), b"ext4", _MS_NOATIME, None
    _check(_LIBC.mount(*arguments), mount)


def _unmount(mount: Path) -> None:
    """Waits for whoever looks at it in this moment."""
    _persist(lambda: _check(_LIBC.umount2(os.fsencode(mount), 0), mount))
