# SPDX-License-Identifier: GPL-2.0-only
"""Names the files whose inodes were seen."""

import stat
from array import array
from collections import OrderedDict

from iorec.host.devices import block_device_path, char_device_path, numbers_of_dev
from iorec.host.escape import escape_name
from iorec.host.inode_paths import PART, FilePaths
from iorec.host.path_finder import Inode

# What the files may take whose paths are remembered; those used longest ago are forgotten first.
_MOST_BYTES = 32 << 20
_BYTES_PER_FILE = 400  # without its path, as measured
# Of files beyond that, 12 bytes each, the oldest have no name at all.
_MOST_NUMBERS = 1 << 20
NO_FILE = -1
# In place of an inode's number: a kind of file that is none (S_IFMT), which the kernel sends as the
# generation of an inode 0.
_KIND = 1 << 63
_KINDS = {_KIND | stat.S_IFIFO: "pipe", _KIND | stat.S_IFSOCK: "socket"}


class Files:
    """The files of a recording, by number in the order in which they were first seen."""

    def __init__(self, paths: FilePaths) -> None:
        self._paths = paths
        self._numbers: dict[Inode, int] = {}
        self._known: OrderedDict[int, tuple[Inode, bytes | None]] = OrderedDict()
        self._held_bytes = 0
        self._first = 0  # number of the first one in these:
        self._devs, self._inodes = array("I"), array("Q")
        self._new: list[Inode] = []

    def number(self, dev: int, inode: int, generation: int) -> int:
        """The number of a file, or, if the inode is 0, of a device, pipe or socket; -1 if unknown.

        A number is never that of another file later; a file that was forgotten gets a new one.
        """
        if not inode and generation:
            inode, generation = _KIND | generation, 0
        if not dev and inode not in _KINDS:
            return NO_FILE
        key = dev, inode, generation
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = self._first + len(self._devs)
            self._devs.append(dev)
            self._inodes.append(inode)
            if inode and not inode & _KIND:
                self._remember(number, key, None)
                self._new.append(key)
            else:
                path = char_device_path(dev) if inode else block_device_path(dev)
                self._remember(number, key, None if path is None else path.encode())
            if len(self._devs) > _MOST_NUMBERS:
                self._first += _MOST_NUMBERS // 2
                del self._devs[: _MOST_NUMBERS // 2], self._inodes[: _MOST_NUMBERS // 2]
        return number

    def ask(self) -> None:
        """Asks for the paths of new files; to be called soon, while the files are in use."""
        new, self._new = self._new, []
        with self._paths.notes.guard(PART):
            if new:
                self._paths.ask(new)

    def read_answers(self, *, are_last: bool = False) -> None:
        """Takes the paths that have been found; to be called before `name`."""
        with self._paths.notes.guard(PART):
            paths = self._paths
            for inode, path in paths.last_answers() if are_last else paths.answers():
                number = self._numbers.get(inode)
                if number is not None and path is not None:
                    self._remember(number, inode, path)

    def name(self, number: int) -> str | None:
        """The name of a file; MAJOR:MINOR:INODE of one whose path is not known (yet).

        What is none begins with neither a slash nor a digit: `pipe`, `socket`, `char:/dev/tty`.
        """
        place = number - self._first
        path = None
        if number in self._known:
            self._known.move_to_end(number)
            (dev, inode, _), path = self._known[number]
        elif 0 <= place < len(self._devs):
            dev, inode = self._devs[place], self._inodes[place]
        else:
            return None
        if not inode:
            return _block_device(dev, path)
        if inode & _KIND:
            device = numbers_of_dev(dev) if path is None else path.decode()
            return _KINDS.get(inode, f"char:{device}")
        return f"{numbers_of_dev(dev)}:{inode}" if path is None else escape_name(path)

    def _remember(self, number: int, inode: Inode, path: bytes | None) -> None:
        """And forgets others for it."""
        if number in self._known:
            self._held_bytes -= _size(self._known[number][1])
        self._known[number] = inode, path
        self._known.move_to_end(number)
        self._held_bytes += _size(path)
        while self._held_bytes > _MOST_BYTES:
            _, (forgotten, its_path) = self._known.popitem(last=False)
            self._held_bytes -= _size(its_path)
            del self._numbers[forgotten]


def _block_device(dev: int, path: bytes | None) -> str:
    """The name that it had when it was seen, unless its number is that of another one by now."""
    before = None if path is None else path.decode()
    now = block_device_path(dev)
    if before and now and before != now:
        return f"/dev/block/{numbers_of_dev(dev)}"
    return now or before or f"/dev/block/{numbers_of_dev(dev)}"


def _size(path: bytes | None) -> int:
    return _BYTES_PER_FILE + len(path or b"")
