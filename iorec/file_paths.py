"""Has a process of its own find the paths of inodes, which takes a privilege."""

import contextlib
import ctypes
import json
import os
import select
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from iorec.privileges import keep_read_privilege

Inode = tuple[int, int, int]  # dev_t of the file system, inode number, generation

# exportfs.h, and XFS_FILEID_TYPE_64FLAG
_INO32_GEN, _XFS_INO64_GEN, _BTRFS = 1, 0x81, 0x4D
_PATIENCE_S = 0.2
_LARGEST_MESSAGE = 1 << 17
_MOST_IN_MESSAGE = 32  # of paths of 4 KiB


class FilePaths:
    """A process that keeps one privilege, to open files by inode; a context manager.

    Nobody waits long for it: a disk that hangs must not stop the recording.
    """

    def __init__(self) -> None:
        self._unanswered = 0
        self._patience_s = _PATIENCE_S
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._channel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _LARGEST_MESSAGE)
        self._channel.setblocking(False)
        with theirs:
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * _LARGEST_MESSAGE)
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "iorec.file_paths", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for the recorder
            )

    def __enter__(self) -> "FilePaths":
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()  # which ends the process, unless a disk keeps it
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_PATIENCE_S)

    def ask(self, inodes: list[Inode]) -> None:
        """Asks for some paths; those for which the process is too busy remain unknown."""
        for first in range(0, len(inodes), _MOST_IN_MESSAGE):
            try:
                self._channel.send(json.dumps(inodes[first : first + _MOST_IN_MESSAGE]).encode())
            except OSError:
                return
            self._unanswered += 1

    def answers(self) -> Iterator[tuple[Inode, str | None]]:
        """What has been found meanwhile; None: there is no path."""
        while self._unanswered:
            if not select.select([self._channel], [], [], self._patience_s)[0]:
                self._patience_s = 0.0
                return
            try:
                message = self._channel.recv(_LARGEST_MESSAGE)
            except OSError:
                message = b""
            if not message:
                self._unanswered = 0
                return
            self._unanswered -= 1
            self._patience_s = _PATIENCE_S
            for dev, inode, generation, path in json.loads(message):
                yield (dev, inode, generation), path


def _main() -> None:
    keep_read_privilege()
    with socket.socket(fileno=int(sys.argv[1])) as channel:
        while message := channel.recv(_LARGEST_MESSAGE):
            inodes = json.loads(message)
            with _open_mounts({dev for dev, *_ in inodes}) as mounts:
                answer = [(*inode, _find_path(mounts, *inode)) for inode in inodes]
            channel.send(json.dumps(answer).encode())


@dataclass(frozen=True)
class _Mount:
    """A folder of a file system, open; of btrfs the subvolume that is mounted there."""

    dev: int
    subvolume: int | None
    fd: int


def _find_path(mounts: list[_Mount], dev: int, inode: int, generation: int) -> str | None:
    """The path by which the kernel knows the inode; None if it knows none, or not how to find it.

    The kernel still has the name in memory of a file that was in use a moment ago, so no disk is
    read. Subvolumes of btrfs number their inodes independently, so of those that are mounted only
    one may have this one.
    """
    of_dev = (mount for mount in mounts if mount.dev == dev)
    paths = {path for mount in of_dev if (path := _path_at(mount, inode, generation))}
    return paths.pop() if len(paths) == 1 else None


def _path_at(mount: _Mount, inode: int, generation: int) -> str | None:
    handles = [
        (_INO32_GEN, struct.pack("<II", inode & 0xFFFFFFFF, generation)),
        (_XFS_INO64_GEN, struct.pack("<QI", inode, generation)),
    ][inode > 0xFFFFFFFF :]
    if mount.subvolume is not None:
        handles = [(_BTRFS, struct.pack("<QQI", inode, mount.subvolume, generation))]
    for kind, handle in handles:
        content = struct.pack("Ii", len(handle), kind) + handle
        fd = ctypes.CDLL(None).open_by_handle_at(mount.fd, content, os.O_PATH | os.O_CLOEXEC)
        if fd >= 0:
            try:
                return str(Path(f"/proc/self/fd/{fd}").readlink())
            finally:
                os.close(fd)
    return None


@contextlib.contextmanager
def _open_mounts(devs: set[int]) -> Iterator[list[_Mount]]:
    """One mount of each file system, of btrfs one of each subvolume that is mounted.

    They are closed at once: what is open cannot be unmounted.
    """
    found: dict[tuple[int, int | None], _Mount] = {}
    try:
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            fields = line.split()
            major, minor = map(int, fields[2].split(":"))
            options = dict(word.partition("=")[::2] for word in fields[-1].split(","))
            subvolume = int(options["subvolid"]) if "subvolid" in options else None
            key = major << 20 | minor, subvolume
            if key[0] in devs and key not in found:
                place = fields[4].encode().decode("unicode_escape").encode("latin-1")
                with contextlib.suppress(OSError):
                    found[key] = _Mount(*key, os.open(place, os.O_RDONLY | os.O_CLOEXEC))
        yield list(found.values())
    finally:
        for mount in found.values():
            os.close(mount.fd)


if __name__ == "__main__":
    _main()
