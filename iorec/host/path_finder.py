# SPDX-License-Identifier: GPL-2.0-only
"""Finds the paths of inodes for a recorder: a process that may open any file, and nothing else.

It is two processes: one answers, the other starts the next one when that one ends or hangs. When
the starter itself is killed, the one that answers takes its place.
"""

import contextlib
import ctypes
import errno
import fcntl
import os
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

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

# include/uapi/linux/btrfs.h and btrfs_tree.h: struct btrfs_ioctl_get_subvol_rootref_args is a least
# number, 255 pairs of a subvolume and the folder it is in, how many there are, and padding. In
# struct btrfs_ioctl_get_subvol_info_args uuid is at 296, parent_uuid at 312, otransid at 352.
_TOP_SUBVOLUME, _ROOT_INODE = 5, 256
_GET_SUBVOL_ROOTREF, _ROOTREF_BYTES = 0xD000_943D, 4096
_ROOTREF = struct.Struct("<QQ")
_GET_SUBVOL_INFO, _INFO_BYTES = 0x81F8_943C, 504
_MOST_SUBVOLUMES = 1000  # each is asked for each file

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


class Subvolume(NamedTuple):
    """Of a btrfs; `made` is the transaction in which it came to be, `parent` what it was made of.

    Those with one `ancestor` are snapshots of one another.
    """

    number: int
    uuid: bytes
    parent: bytes
    made: int
    ancestor: bytes = b""


@dataclass(frozen=True)
class _OpenMount:
    """A folder of a file system, open; of btrfs the subvolume that is mounted there."""

    dev: int
    number: int | None  # of the subvolume
    is_whole: bool  # not just a folder of it
    fd: int
    subvolume: Subvolume | None = None
    others: tuple[Subvolume, ...] = ()  # that are not mounted by themselves


def _find_path(mounts: list[_OpenMount], dev: int, inode: int, generation: int) -> bytes | None:
    """The path by which the kernel knows the inode; None if it knows none, or not how to find it.

    The kernel still has the name in memory of a file that was in use a moment ago, so no disk is
    read. Subvolumes of btrfs number their inodes independently: where several have this one, they
    must be one file in snapshots, and of the subvolumes that are mounted only one may have it.
    """
    holders: list[Subvolume] = []
    mounted: set[bytes | None] = set()
    others: set[bytes | None] = set()
    for mount in mounts:
        if mount.dev == dev:
            for subvolume in (mount.subvolume, *mount.others):
                paths = mounted if subvolume == mount.subvolume else others
                with _opened(mount, subvolume, inode, generation) as fd:
                    if fd is not None:
                        holders += [subvolume] if subvolume is not None else []
                        with contextlib.suppress(OSError):  # it is longer than the kernel prints
                            paths.add(_path_of(mount, fd))
    found = (mounted or others) - {None}
    is_one = len(found) == 1 and is_one_file(holders, generation)
    return found.pop() if is_one else None


def is_one_file(holders: Sequence[Subvolume], generation: int) -> bool:
    """Whether an inode in these subvolumes is one that was there when they were made of another.

    `generation` is the transaction in which it was created.
    """
    if len(holders) < 2:
        return True
    made_later = any(generation > holder.made for holder in holders if any(holder.parent))
    return not made_later and len({holder.ancestor for holder in holders}) == 1


@contextlib.contextmanager
def _opened(
    mount: _OpenMount, subvolume: Subvolume | None, inode: int, generation: int
) -> Iterator[int | None]:
    """The inode, None if it is not there."""
    handles = [
        (_INO32_GEN, struct.pack("<II", inode & 0xFFFFFFFF, generation)),
        (_XFS_INO64_GEN, struct.pack("<QI", inode, generation)),
    ][inode > 0xFFFFFFFF :]
    if subvolume is not None:
        handles = [(_BTRFS, struct.pack("<QQI", inode, subvolume.number, generation))]
    for handle in handles:
        fd = _open_handle(mount.fd, *handle, os.O_PATH)
        if fd >= 0:
            try:
                yield fd
                return
            finally:
                os.close(fd)
    yield None


def _open_handle(mount_fd: int, kind: int, handle: bytes, flags: int) -> int:
    """A file descriptor; -1 if there is no such file."""
    content = struct.pack("Ii", len(handle), kind) + handle
    return int(_libc.open_by_handle_at(mount_fd, content, flags | os.O_CLOEXEC))


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
        yield _with_others(list(found.values()))
    finally:
        for opened in found.values():
            os.close(opened.fd)


def _with_others(mounts: list[_OpenMount]) -> list[_OpenMount]:
    """The same, of each btrfs one that leads to the subvolumes that are not mounted, too.

    A btrfs of which these cannot be told is left out.
    """
    made = [mount for mount in mounts if mount.number is None]
    for dev in {mount.dev for mount in mounts} - {mount.dev for mount in made}:
        of_it = [mount for mount in mounts if mount.dev == dev]
        with contextlib.suppress(OSError, KeyError):
            known = _subvolumes(of_it[0].fd)
            first, *following = [
                replace(mount, subvolume=known.pop(mount.number)) for mount in of_it
            ]
            made += [replace(first, others=tuple(known.values())), *following]
    return made


def _subvolumes(mount_fd: int) -> dict[int | None, Subvolume]:
    """Those of a btrfs by number; each knows the ones in it. OSError if they are unknown."""
    found: dict[int | None, Subvolume] = {}
    waiting = [_TOP_SUBVOLUME]
    while waiting:
        number = waiting.pop()
        handle = struct.pack("<QQI", _ROOT_INODE, number, 0)  # of any generation
        fd = _open_handle(mount_fd, _BTRFS, handle, os.O_RDONLY)
        if fd < 0:
            continue  # it was deleted just now
        try:
            found[number] = _describe(fd, number)
            waiting += set(_inner_subvolumes(fd)) - found.keys()
        finally:
            os.close(fd)
        if len(found) > _MOST_SUBVOLUMES:
            raise OSError(errno.E2BIG, os.strerror(errno.E2BIG))
    by_uuid = {one.uuid: one for one in found.values()}
    return {number: one._replace(ancestor=_ancestor(one, by_uuid)) for number, one in found.items()}


def _describe(fd: int, number: int) -> Subvolume:
    info = bytearray(_INFO_BYTES)
    fcntl.ioctl(fd, _GET_SUBVOL_INFO, info)
    (made,) = struct.unpack_from("<Q", info, 352)
    return Subvolume(number, bytes(info[296:312]), bytes(info[312:328]), made)


def _ancestor(one: Subvolume, by_uuid: dict[bytes, Subvolume]) -> bytes:
    """What it was made of in the end, which may be deleted; its number if of nothing."""
    while any(one.parent) and one.parent in by_uuid:
        one = by_uuid[one.parent]
    return one.parent if any(one.parent) else one.number.to_bytes(8, "little")


def _inner_subvolumes(fd: int) -> Iterator[int]:
    least = 0
    while True:
        arguments = bytearray(struct.pack("<Q", least).ljust(_ROOTREF_BYTES, b"\0"))
        has_more = False
        try:
            fcntl.ioctl(fd, _GET_SUBVOL_ROOTREF, arguments)
        except OSError as error:
            if error.errno != errno.EOVERFLOW:
                raise
            has_more = True
        numbers = [number for number, _ in _ROOTREF.iter_unpack(arguments[8:-8])]
        yield from numbers[: arguments[-8]]
        if not has_more:
            return
        least = numbers[arguments[-8] - 1] + 1


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
