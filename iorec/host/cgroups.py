# SPDX-License-Identifier: GPL-2.0-only
"""Resolves cgroup ids to paths."""

import os
import time
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

from iorec.host.escape import escape_name
from iorec.host.mounts import read_mounts
from iorec.host.notes import Notes

_PART = "cgroups"
_MOST_PATHS = 50_000  # of some 200 bytes each; those used longest ago are forgotten first

# Thousands that come and go must not keep the recorder from draining: 5 % of its time.
_PAUSES_PER_LOOK = 19


def cgroup_root() -> Path | None:
    """Where the cgroup2 hierarchy is mounted; None if it is not."""
    return next((mount.place for mount in read_mounts() if mount.kind == "cgroup2"), None)


def cgroup_version() -> int | None:
    """Of the hierarchies that the machine keeps its processes in; None if that is not known.

    Where some are of version 1, that of version 2 may be there and have nothing but its root.
    """
    try:
        kinds = {mount.kind for mount in read_mounts()}
    except OSError:
        return None
    return 1 if "cgroup" in kinds else 2 if "cgroup2" in kinds else None


def is_io_controller_unified() -> bool:
    """Whether I/O is charged to cgroups of the cgroup2 hierarchy, and not of one of version 1."""
    root = cgroup_root()
    try:
        return root is not None and "io" in (root / "cgroup.controllers").read_text().split()
    except OSError:
        return False


class CgroupNames:
    """Paths by cgroup id, which is the inode number of a cgroup's folder."""

    def __init__(self, notes: Notes) -> None:
        self._notes = notes
        self._root: bytes | None = None
        with notes.guard(_PART):
            root = cgroup_root()
            self._root = None if root is None else os.fsencode(root)
        self._paths: OrderedDict[int, str] = OrderedDict()
        self._found: dict[int, bytes] = {}
        self._has_looked = False
        self._next_look_s = 0.0

    def refresh(self) -> None:
        """To be called after each drain, before its cgroups are resolved.

        They were all made before, so looking through the hierarchy once is enough.
        """
        self._has_looked = False

    def resolve(self, cgroup_id: int, pid: int | None = None) -> str:
        """The path from the root of the hierarchy, `/` for the root itself.

        The process `pid` is likely still in it. A cgroup that vanished before it could be looked up
        is `id:N`.
        """
        if cgroup_id in self._paths:
            self._paths.move_to_end(cgroup_id)
            return self._paths[cgroup_id]
        path = None
        with self._notes.guard(_PART):
            path = self._look_up(cgroup_id, pid)
        name = f"id:{cgroup_id}" if path is None else escape_name(path)
        if path is None and not self._has_looked:
            return name  # and look it up the next time
        self._paths[cgroup_id] = name
        if len(self._paths) > _MOST_PATHS:
            self._paths.popitem(last=False)
        return name

    def _look_up(self, cgroup_id: int, pid: int | None) -> bytes | None:
        if self._root is None:
            return None
        if pid and (path := _path_of_process(self._root, pid, cgroup_id)) is not None:
            return path
        started_s = time.monotonic()
        if cgroup_id not in self._found and not self._has_looked and started_s > self._next_look_s:
            self._has_looked = True
            self._found = dict(_walk(self._root))
            now_s = time.monotonic()
            self._next_look_s = now_s + _PAUSES_PER_LOOK * (now_s - started_s)
        return self._found.get(cgroup_id)


def _path_of_process(root: bytes, pid: int, cgroup_id: int) -> bytes | None:
    """The path of the cgroup if the process is in it now."""
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_bytes().split(b"\n")
        path = next((line[3:] for line in lines if line.startswith(b"0::")), b"")
        return path if Path(os.fsdecode(root + path)).stat().st_ino == cgroup_id else None
    except OSError:
        return None


def _walk(root: bytes) -> Iterator[tuple[int, bytes]]:
    """The id and path of every cgroup; those that come or go meanwhile may be left out."""
    yield Path(os.fsdecode(root)).stat().st_ino, b"/"
    folders = [b""]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(root + folder) as entries:
                below = [entry for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError:
            continue
        for entry in below:
            path = folder + b"/" + entry.name
            yield entry.inode(), path
            if _has_folders(entry):
                folders.append(path)


def _has_folders(entry: os.DirEntry[bytes]) -> bool:
    """Most cgroups have none below them, and many files to skip. Two links are a folder's own."""
    try:
        return entry.stat(follow_symlinks=False).st_nlink != 2
    except OSError:
        return False
