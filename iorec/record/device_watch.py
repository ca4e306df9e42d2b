# SPDX-License-Identifier: GPL-2.0-only
"""Follows the block devices while recording: what they are called, which come and go."""

import contextlib
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path

from analyze.metadata import Device
from iorec.host.device_inventory import describe_device, describe_devices, gone_device
from iorec.host.devices import dev_of_numbers, disk_name, disk_of_dev, numbers_of_dev
from iorec.host.loops import LoopFiles, loop_backing
from iorec.host.notes import Notes
from iorec.host.uevents import DiskEvent, DiskEvents

_PART = "devices"
_LOOK_S = 1.0  # not more often
_MOST_DESCRIBED = 50  # at once, of some 200 µs each
_MOST_LISTED = 10_000
# An I/O that completed just before the event may be drained just after it.
_UNSURE_REFRESHES = 2


class DeviceWatch:
    """The machine's disks from the moment in which it was made, best with every privilege.

    The kernel gives the number of a disk that went to the next one, under another name. What cannot
    be told apart then, the I/Os around that moment, is called by its number.
    """

    def __init__(self, notes: Notes) -> None:
        self._notes = notes
        self._events: DiskEvents | None = None
        with notes.guard(_PART):
            self._events = DiskEvents()
        self._names: dict[int, str] = {}
        self._checked: set[int] = set()
        self._unsure: dict[int, int] = {}
        self._renamed: set[int] = set()
        self._listed: dict[str, Device] = {}
        self._described: tuple[Device, ...] | None = None
        self._changed: dict[str, int] = {}
        self._looked_s = time.monotonic()
        self._loops: LoopFiles = {}
        with notes.guard(_PART):
            self._loops = loop_backing()
        self._loop_files = self._loops
        self._latest_loops = deque([self._loops], maxlen=_UNSURE_REFRESHES + 1)
        with notes.guard(_PART):
            for device in describe_devices():
                self._listed[device.name] = device
                self._learn(device.major << 20 | device.minor, device.name)

    def refresh(self) -> None:
        """Takes in what came and went; to be called before rows are named."""
        self._unsure = {dev: left - 1 for dev, left in self._unsure.items() if left > 1}
        has_missed = True
        with self._notes.guard(_PART):
            if self._events is not None:
                events, has_missed = self._events.read()
                self.take(events)
                if events:
                    changed = {event.name for event in events}
                    kept = {key: name for key, name in self._loops.items() if name not in changed}
                    self._loops = loop_backing({} if has_missed else kept)
        self._name_loops()
        if has_missed:
            self._checked.clear()
            with self._notes.guard(_PART):
                self._look_for_others()
        with self._notes.guard(_PART):
            self._describe_changed()

    def take(self, events: Iterable[DiskEvent]) -> None:
        """Learns from events, in their order."""
        for event in events:
            self._changed[event.name] = event.dev
            if event.action == "remove":
                self._checked.discard(event.dev)
            else:
                self._learn(event.dev, event.name)

    def resolve(self, dev: int, partno: int) -> tuple[str | None, str | None]:
        """Names of the disk and of the partition (None: none, or a queue without a disk).

        A disk that went before it could be looked up is called by its numbers, as is one that has
        just taken the number of another.
        """
        if dev == 0:
            return None, None
        if dev not in self._checked:
            self._checked.add(dev)
            with self._notes.guard(_PART):
                if (found := disk_of_dev(dev)) is not None:
                    self._learn(dev, found)
        name = self._names.get(dev)
        if name is None or dev in self._unsure:
            name = numbers_of_dev(dev)
        return name, _partition_name(name, partno) if partno else None

    def loop_on(self, dev: int, inode: int) -> str | None:
        """The loop device that stands on a file, or with inode 0 on a block device."""
        return self._loop_files.get((dev, inode))

    def _name_loops(self) -> None:
        """Believes what has been so for a while: rows may be older than the last event."""
        self._latest_loops.append(self._loops)
        first, *others = self._latest_loops
        if any(other is not first for other in others):
            first = {
                key: name
                for key, name in first.items()
                if all(other.get(key) == name for other in others)
            }
        self._loop_files = first

    def account_name(self, dev: int) -> str | None:
        """The name for what was counted over the whole time: numbers if that were several disks."""
        return numbers_of_dev(dev) if dev in self._renamed else self.resolve(dev, 0)[0]

    def described(self) -> tuple[Device, ...]:
        """Every disk there was, as it was last."""
        if self._described is None:
            self._described = tuple(self._listed.values())
        return self._described

    def _learn(self, dev: int, name: str) -> None:
        before = self._names.get(dev)
        if before is not None and before != name:
            self._unsure[dev] = _UNSURE_REFRESHES
            self._renamed.add(dev)
        self._names[dev] = name
        self._checked.add(dev)

    def _look_for_others(self) -> None:
        """Finds the disks that came without an event."""
        if time.monotonic() - self._looked_s < _LOOK_S:
            return
        self._looked_s = time.monotonic()
        for folder in Path("/sys/block").iterdir():
            name = disk_name(folder.name)
            if name not in self._listed:
                with contextlib.suppress(OSError, ValueError):  # it is gone already
                    self._changed[name] = dev_of_numbers((folder / "dev").read_text())

    def _describe_changed(self) -> None:
        """Describes some of them, and others the next time: nobody may wait for thousands."""
        for name in list(self._changed)[:_MOST_DESCRIBED]:
            dev = self._changed.pop(name)
            folder = Path(f"/sys/dev/block/{numbers_of_dev(dev)}").resolve()
            now = describe_device(folder)
            if now is not None:
                self._list(now)
            if name not in self._listed:
                self._list(gone_device(name, dev))

    def _list(self, device: Device) -> None:
        """One that lost its size keeps the description it had: a loop device without its file."""
        if device.name not in self._listed and len(self._listed) >= _MOST_LISTED:
            self._notes.add(_PART, "more than the capture lists")
        elif device.size_bytes or device.name not in self._listed:
            self._listed[device.name] = device
            self._described = None


def _partition_name(disk: str, partno: int) -> str:
    """As the kernel makes it (disk_name() in block/partitions/core.c)."""
    return f"{disk}p{partno}" if disk[-1:].isdigit() else f"{disk}{partno}"
