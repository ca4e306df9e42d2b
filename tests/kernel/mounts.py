# SPDX-License-Identifier: GPL-2.0-only
"""File systems on loop devices, mounted for a while."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.kernel.conftest import LoopDevice


@contextmanager
def mounted_ext4(disk: LoopDevice, mount: Path) -> Iterator[Path]:
    """A new file system on a disk."""
    with mounted_new("ext4", disk, mount):
        yield mount


@contextmanager
def mounted_new(kind: str, disk: LoopDevice, mount: Path) -> Iterator[Path]:
    """A new file system of a kind on a disk."""
    mount.mkdir()
    options = ["-E", "lazy_itable_init=0"] if kind == "ext4" else []
    subprocess.run([f"mkfs.{kind}", "-q", *options, disk.path], check=True)
    with mounted(disk, mount):
        yield mount


@contextmanager
def mounted(disk: LoopDevice, mount: Path) -> Iterator[Path]:
    subprocess.run(["mount", disk.path, mount], check=True)
    try:
        yield mount
    finally:
        unmount(mount)


@contextmanager
def small_tmpfs(mount: Path, size: str) -> Iterator[Path]:
    """A file system in memory with little room."""
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", mount], check=True)
    try:
        yield mount
    finally:
        subprocess.run(["umount", "-l", mount], check=True)


def unmount(mount: Path) -> None:
    """Waits for whoever looks for a path there: any recorder of this machine may."""
    deadline = time.monotonic() + 5
    while subprocess.run(["umount", mount], check=False).returncode:
        if time.monotonic() > deadline:
            subprocess.run(["umount", "-l", mount], check=False)
            raise AssertionError(f"{mount} is busy")
        time.sleep(0.1)
