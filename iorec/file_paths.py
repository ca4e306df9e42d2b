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
from functools import cache
from pathlib import Path

from iorec.privileges import keep_read_privilege

Inode = tuple[int, int, int]  # dev_t of the file system, inode number, generation

# exportfs.h, and XFS_FILEID_TYPE_64FLAG; file systems with handles of their own are tried last.
_INO32_GEN, _XFS_INO64_GEN, _BTRFS = 1, 0x81, 0x4D
_BTRFS_TOP_SUBVOLUME = 5
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
            answer = [(*inode, _find_path(*inode)) for inode in json.loads(message)]
            channel.send(json.dumps(answer).encode())


def _find_path(dev: int, inode: int, generation: int) -> str | None:
    """The path by which the kernel knows the inode; None if it knows none, or not how to find it.

    The kernel still has the name in memory of a file that was in use a moment ago, so no disk is
    read.
    """
    mount = _open_mount(dev)
    if mount is None:
        return None
    handles = (
        (_INO32_GEN, struct.pack("<II", inode & 0xFFFFFFFF, generation)),
        (_XFS_INO64_GEN, struct.pack("<QI", inode, generation)),
        (_BTRFS, struct.pack("<QQI", inode, _BTRFS_TOP_SUBVOLUME, generation)),
    )
    for kind, handle in handles[inode > 0xFFFFFFFF :]:
        content = struct.pack("Ii", len(handle), kind) + handle
        fd = ctypes.CDLL(None).open_by_handle_at(mount, content, os.O_PATH | os.O_CLOEXEC)
        if fd >= 0:
            try:
                return str(Path(f"/proc/self/fd/{fd}").readlink())
            finally:
                os.close(fd)
    return None


@cache
def _open_mount(dev: int) -> int | None:
    """A folder of the file system."""
    numbers = f"{dev >> 20}:{dev & 0xFFFFF}"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[2] == numbers:
            place = fields[4].encode().decode("unicode_escape").encode("latin-1")
            try:
                return os.open(place, os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                continue
    return None


if __name__ == "__main__":
    _main()
