"""Names the files of which inodes were seen."""

import os
from pathlib import Path

from iorec.file_paths import FilePaths, Inode
from iorec.name_column import escape_name

# Some 200 bytes each. Of files beyond that the inode is recorded, and no name.
_MOST_FILES = 100_000
# Half of the names that a spool may hold (iorec/arrow_stream.py); files beyond that have no path.
_MOST_PATH_BYTES = 12 << 20
NO_FILE = -1


class Files:
    """The files of a recording, by number in the order in which they were first seen."""

    def __init__(self, paths: FilePaths) -> None:
        self._paths = paths
        self._numbers: dict[Inode, int] = {}
        self._names: list[str] = []
        self._new: list[Inode] = []
        self._room_bytes = _MOST_PATH_BYTES

    def number(self, dev: int, inode: int, generation: int) -> int:
        """The number of a file, or of a block device if the inode is 0; -1 if unknown."""
        key = dev, inode, generation
        if not dev:
            return NO_FILE
        number = self._numbers.get(key)
        if number is None and len(self._names) < _MOST_FILES:
            number = self._numbers[key] = len(self._names)
            self._names.append(f"{dev >> 20}:{dev & 0xFFFFF}:{inode}")
            if inode:
                self._new.append(key)
            else:
                self._names[number] = _block_device(dev)
        return NO_FILE if number is None else number

    def ask(self) -> None:
        """Has the paths of new files looked up; to be called soon, while the files are in use."""
        if self._new:
            self._paths.ask(self._new)
        self._new = []

    def read_answers(self) -> None:
        """Takes in the paths that were found meanwhile."""
        for inode, path in self._paths.answers():
            if path is not None and len(path) <= self._room_bytes:
                self._room_bytes -= len(path)
                self._names[self._numbers[inode]] = escape_name(os.fsencode(path))

    def name(self, number: int) -> str | None:
        """The path of a file; MAJOR:MINOR:INODE if it is not known (yet)."""
        return None if number == NO_FILE else self._names[number]


def _block_device(dev: int) -> str:
    numbers = f"{dev >> 20}:{dev & 0xFFFFF}"
    folder = Path(f"/sys/dev/block/{numbers}")
    name = folder.resolve().name.replace("!", "/") if folder.exists() else f"block/{numbers}"
    return f"/dev/{name}"
