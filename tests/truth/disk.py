# SPDX-License-Identifier: GPL-2.0-only
"""Knows where the files of a file system lie on its device."""

import fcntl
import os
import random
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_FS_IOC_FIEMAP = 0xC020660B
_FIEMAP = struct.Struct("=QQIIII")
_FIEMAP_EXTENT = struct.Struct("=QQQ16xI12x")
_FIEMAP_FLAG_SYNC = 1
_MOST_EXTENTS = 16
_UNUSABLE = 0x2 | 0x4 | 0x8 | 0x200 | 0x800  # unknown, delayed, encoded, inline, unwritten

EXTENT = np.dtype(
    [("start", np.int64), ("end", np.int64), ("file", np.int32), ("is_first", np.bool_)]
)
_FOREVER_NS = 1 << 62


@dataclass
class Disk:
    """Files on a device that do not move from one moment to another (CLOCK_MONOTONIC)."""

    device: str
    numbers: str  # which name a device that went before its name was looked up
    names: list[set[str]]  # all that a file was called, as a capture has it
    inodes: NDArray[np.int64]
    pools: NDArray[np.int32]  # to which the files belong
    extents: NDArray[np.void]  # by start
    from_ns: int = 0
    to_ns: int = _FOREVER_NS


def write_files(paths: Sequence[Path], dice: random.Random, pages: Sequence[int] = (1,)) -> None:
    """Makes files of some pages each and has them on the device, and not in memory."""
    for path in paths:
        path.write_bytes(b"t" * (dice.choice(pages) << 12))
    for path in paths:
        fd = os.open(path, os.O_RDONLY)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


def survey(device: str, pools: Sequence[tuple[int, Sequence[Path]]]) -> Disk:
    """Finds the extents of the files of each pool, which are on the device already."""
    number = Path(f"/dev/{device}").stat().st_rdev
    dev = f"{os.major(number)}:{os.minor(number)}"
    names: list[set[str]] = []
    inodes, extents = [], []
    for path in (path for _, paths in pools for path in paths):
        inode = path.stat().st_ino
        extents += [
            (start, end, len(names), place == 0)
            for place, (start, end) in enumerate(_extents(path))
        ]
        names.append({escaped(os.fsencode(path)), f"{dev}:{inode}"})
        inodes.append(inode)
    numbers = [np.full(len(paths), pool, np.int32) for pool, paths in pools]
    return Disk(
        device,
        dev,
        names,
        np.array(inodes, np.int64),
        np.concatenate(numbers),
        np.sort(np.array(extents, EXTENT), order="start"),
    )


def escaped(raw: bytes) -> str:
    """A name as docs/capture-format.md says that it is written."""
    return raw.replace(b"\\", b"\\x5c").decode(errors="backslashreplace")


def _extents(path: Path) -> list[tuple[int, int]]:
    """Where the device has the file, in bytes."""
    room = bytes(_FIEMAP_EXTENT.size * _MOST_EXTENTS)
    asked = _FIEMAP.pack(0, _FOREVER_NS, _FIEMAP_FLAG_SYNC, 0, _MOST_EXTENTS, 0) + room
    with path.open("rb") as file:
        told = fcntl.ioctl(file, _FS_IOC_FIEMAP, asked)
    count = _FIEMAP.unpack_from(told)[3]
    found = []
    for place in range(count):
        offset = _FIEMAP.size + place * _FIEMAP_EXTENT.size
        _, physical, length, flags = _FIEMAP_EXTENT.unpack_from(told, offset)
        assert not flags & _UNUSABLE, (path, flags)
        found.append((physical, physical + length))
    assert 0 < count < _MOST_EXTENTS, path
    return found
