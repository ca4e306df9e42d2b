"""Names the files of which inodes were seen."""

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from iorec.arrow import distinct
from iorec.file_paths import FilePaths, Inode
from iorec.name_column import NameColumn, escape_name

# Some 200 bytes each. Of files beyond that the inode is recorded, and no name.
_MOST_FILES = 100_000
# Half of the names that a spool may hold (iorec/arrow_stream.py); files beyond that have no path.
_MOST_PATH_BYTES = 12 << 20
_NO_FILE = -1


class Files:
    """The files of a recording, by number in the order in which they were first seen."""

    def __init__(self, paths: FilePaths, names: NameColumn) -> None:
        self._paths = paths
        self._column = names
        self._numbers: dict[Inode, int] = {}
        self._names: list[str] = []
        self._new: list[Inode] = []
        self._room_bytes = _MOST_PATH_BYTES

    def number(self, dev: int, inode: int, generation: int) -> int:
        """The number of a file, or of a block device if the inode is 0; -1 if unknown."""
        key = dev, inode, generation
        if not dev:
            return _NO_FILE
        number = self._numbers.get(key)
        if number is None and len(self._names) < _MOST_FILES:
            number = self._numbers[key] = len(self._names)
            self._names.append(f"{dev >> 20}:{dev & 0xFFFFF}:{inode}")
            if inode:
                self._new.append(key)
            else:
                self._names[number] = _block_device(dev)
        return _NO_FILE if number is None else number

    def ask(self) -> None:
        """Has the paths of new files looked up; to be called soon, while the files are in use."""
        if self._new:
            self._paths.ask(self._new)
        self._new = []

    def encode(self, numbers: NDArray[np.int32]) -> pa.DictionaryArray:
        """The names of files; of one whose path is not known (yet) MAJOR:MINOR:INODE."""
        for inode, path in self._paths.answers():
            if path is not None and len(path) <= self._room_bytes:
                self._room_bytes -= len(path)
                self._names[self._numbers[inode]] = escape_name(os.fsencode(path))
        found, places = distinct(numbers)
        codes = [-1 if n < 0 else self._column.code(self._names[n]) for n in found]
        return self._column.encode(np.array(codes, np.int32).take(places))


def _block_device(dev: int) -> str:
    numbers = f"{dev >> 20}:{dev & 0xFFFFF}"
    folder = Path(f"/sys/dev/block/{numbers}")
    name = folder.resolve().name.replace("!", "/") if folder.exists() else f"block/{numbers}"
    return f"/dev/{name}"
