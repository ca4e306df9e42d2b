# SPDX-License-Identifier: GPL-2.0-only
"""Finds the paths of inodes for a recorder: a process that may open any file, and nothing else.

It is two processes: one answers, the other starts the next one when that one ends or hangs. When
the starter itself is killed, the one that answers takes its place.
"""

import contextlib
import ctypes
import os
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from iorec.host.mounts import Mount, mount_number, read_mounts
from iorec.host.privileges import keep_read_privilege

Inode = tuple[int, int, int]  # dev_t of the file system, inode number, generation

# A question is a number and inodes. Its answers have the same number, and paths behind their
# lengths: no message is ever cut.
NUMBER = struct.Struct("<I")
INODE = struct.Struct("<IQI")
FOUND = struct.Struct("<IQIi")  # the inode and the bytes of the path that follows; -1: none
LARGEST_MESSAGE = 1 << 16
REPLACE = b"r"  # an order of a recorder that gets no answers

_PAUSE_S = 0.2  # between two starts

# exportfs.h, and XFS_FILEID_TYPE_64FLAG
_INO32_GEN, _XFS_INO64_GEN, _BTRFS = 1, 0x81, 0x4D
_DELETED = b" (deleted)"

_libc = ctypes.CDLL(None)


def _main() -> None:
    keep_read_privilege()
    questions, orders = (socket.socket(fileno=int(fd)) for fd in sys.argv[1:3])
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nothing is left of those that ended
    while True:
        starter_is_gone, life = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(life)
            if not _answer_all(questions, starter_is_gone):
                return
            os.close(starter_is_gone)
        else:
            os.close(starter_is_gone)
            if not _await_end(child, orders):
                return
            os.close(life)
            time.sleep(_PAUSE_S)


def _await_end(child: int, orders: socket.socket) -> bool:
    """Waits until the child has ended or was told to; returns whether the recorder still lives."""
    try:
        ended = os.pidfd_open(child)
    except ProcessLookupError:
        return True
    try:
        ready = select.select([ended, orders.fileno()], [], [])[0]
    finally:
        os.close(ended)
    if orders.fileno() not in ready:
        return True
    if not orders.recv(len(REPLACE)):
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)  # it may end later, when its disk answers
    return True


def _answer_all(questions: socket.socket, starter_is_gone: int) -> bool:
    """Answers until the starter has gone; returns whether the recorder still lives."""
    while True:
        ready = select.select([questions.fileno(), starter_is_gone], [], [])[0]
        if questions.fileno() not in ready:
            return True
        question = questions.recv(LARGEST_MESSAGE)
        if not question:
            return False
        for answer in _answers(question):
            questions.send(answer)


def _answers(question: bytes) -> Iterator[bytes]:
    number = question[: NUMBER.size]
    inodes: list[Inode] = list(INODE.iter_unpack(question[NUMBER.size :]))
    answer = number
    with _open_mounts({dev for dev, *_ in inodes}) as mounts:
        for inode in inodes:
            path = _find_path(mounts, *inode)
            found = FOUND.pack(*inode, -1 if path is None else len(path)) + (path or b"")
            if len(answer) + len(found) > LARGEST_MESSAGE:
                yield answer
                answer = number
            answer += found
    yield answer


@dataclass(frozen=True)
class _OpenMount:
    """A folder of a file system, open; of btrfs the subvolume that is mounted there."""

    dev: int
    subvolume: int | None
    is_whole: bool  # not just a folder of it
    fd: int


def _find_path(mounts: list[_OpenMount], dev: int, inode: int, generation: int) -> bytes | None:
    """The path by which the kernel knows the inode; None if it knows none, or not how to find it.

    The kernel still has the name in memory of a file that was in use a moment ago, so no disk is
    read. Subvolumes of btrfs number their inodes independently, so of those that are mounted only
    one may have this one.
    """
    paths = set()
    for mount in mounts:
        if mount.dev == dev:
            with contextlib.suppress(OSError):  # the path has more bytes than the kernel prints
                paths.add(_path_at(mount, inode, generation))
    paths.discard(None)
    return paths.pop() if len(paths) == 1 else None


def _path_at(mount: _OpenMount, inode: int, generation: int) -> bytes | None:
    handles = [
        (_INO32_GEN, struct.pack("<II", inode & 0xFFFFFFFF, generation)),
        (_XFS_INO64_GEN, struct.pack("<QI", inode, generation)),
    ][inode > 0xFFFFFFFF :]
    if mount.subvolume is not None:
        handles = [(_BTRFS, struct.pack("<QQI", inode, mount.subvolume, generation))]
    for kind, handle in handles:
        content = struct.pack("Ii", len(handle), kind) + handle
        fd = _libc.open_by_handle_at(mount.fd, content, os.O_PATH | os.O_CLOEXEC)
        if fd >= 0:
            try:
                return _path_of(mount, fd)
            finally:
                os.close(fd)
    return None


def _path_of(mount: _OpenMount, fd: int) -> bytes | None:
    """Tries again, as the file may be renamed just then."""
    for _ in range(2):
        path = os.fsencode(Path(f"/proc/self/fd/{fd}").readlink())
        if _leads_to(path, fd):
            return path
    return path if mount.is_whole and path.endswith(_DELETED) else None


def _leads_to(path: bytes, fd: int) -> bool:
    """Not so below another mount, nor for a file outside of the folder that is mounted."""
    try:
        found, wanted = Path(os.fsdecode(path)).lstat(), os.fstat(fd)
    except OSError:
        return False
    return (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino)


@contextlib.contextmanager
def _open_mounts(devs: set[int]) -> Iterator[list[_OpenMount]]:
    """One mount of each file system, of btrfs one of each subvolume that is mounted.

    They are closed at once: what is open cannot be unmounted.
    """
    found: dict[tuple[int, str | None], _OpenMount] = {}
    mounts = [mount for mount in read_mounts() if mount.dev in devs]
    try:
        for mount in sorted(mounts, key=lambda mount: mount.root != Path("/")):
            subvolume = mount.options.get("subvolid")
            if (mount.dev, subvolume) not in found and (fd := _open(mount)) is not None:
                found[mount.dev, subvolume] = _OpenMount(
                    mount.dev,
                    None if subvolume is None else int(subvolume),
                    _is_whole(mount),
                    fd,
                )
        yield list(found.values())
    finally:
        for opened in found.values():
            os.close(opened.fd)


def _open(mount: Mount) -> int | None:
    """None if the place cannot be opened, or if something else is mounted over it."""
    try:
        fd = os.open(mount.place, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    if mount_number(fd) == mount.number:
        return fd
    os.close(fd)
    return None


def _is_whole(mount: Mount) -> bool:
    """Also of a subvolume of btrfs, if it is not known to be a folder of it."""
    return mount.root == Path(mount.options.get("subvol", "/"))


if __name__ == "__main__":
    _main()
