"""Resolves cgroup ids to paths."""

import os
from dataclasses import dataclass, field
from pathlib import Path


def cgroup_root() -> Path | None:
    """Where the cgroup2 hierarchy is mounted; None if it is not."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        mount, _, source = line.partition(" - ")
        if source.startswith("cgroup2 "):
            return Path(mount.split()[4])
    return None


def is_io_controller_unified() -> bool:
    """Whether I/O is charged to cgroups of the cgroup2 hierarchy, and not of one of version 1."""
    for line in Path("/proc/cgroups").read_text().splitlines():
        name, hierarchy, *_ = line.split()
        if name == "blkio":
            return hierarchy == "0"
    return False


@dataclass
class CgroupNames:
    """Paths by cgroup id; looks through the hierarchy when an unknown id turns up."""

    _root: Path | None = field(default_factory=cgroup_root)
    _paths: dict[int, str] = field(default_factory=dict)

    def resolve(self, cgroup_id: int) -> str:
        """The path from the root of the hierarchy, `/` for the root itself.

        A cgroup that vanished before it could be looked up is `id:N`.
        """
        if cgroup_id not in self._paths:
            self._look_through()
            self._paths.setdefault(cgroup_id, f"id:{cgroup_id}")
        return self._paths[cgroup_id]

    def _look_through(self) -> None:
        if self._root is None:
            return
        # A cgroup's id is the inode number of its folder (kernfs_node id, 64-bit machines).
        for name, _, _ in os.walk(self._root):
            folder = Path(name)
            try:
                inode = folder.stat().st_ino
            except OSError:
                continue
            relative = folder.relative_to(self._root).as_posix()
            self._paths[inode] = "/" if relative == "." else f"/{relative}"
