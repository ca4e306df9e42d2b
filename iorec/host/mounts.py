# SPDX-License-Identifier: GPL-2.0-only
"""Reads which file systems are mounted where."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

_ESCAPED = re.compile(rb"\\([0-7]{3})")


@dataclass(frozen=True)
class Mount:
    """A line of mountinfo; `dev` is the kernel's dev_t."""

    number: int
    dev: int
    root: Path  # the folder of the file system that is mounted
    place: Path
    kind: str
    source: Path  # a device, or any name
    options: dict[str, str]


def read_mounts() -> list[Mount]:
    """The mounts that this process sees, in the order in which they were made."""
    lines = Path("/proc/self/mountinfo").read_bytes().split(b"\n")
    return [mount for line in lines if (mount := parse_mount(line)) is not None]


def parse_mount(line: bytes) -> Mount | None:
    """A line of Documentation/filesystems/proc.rst, 3.5; None if it is none."""
    here, _, there = line.partition(b" - ")
    fields, (kind, *rest) = here.split(b" "), there.split(b" ")
    try:
        major, _, minor = fields[2].partition(b":")
        options = dict(word.partition("=")[::2] for word in str(_unescaped(rest[1])).split(","))
        return Mount(
            number=int(fields[0]),
            dev=int(major) << 20 | int(minor),
            root=_unescaped(fields[3]),
            place=_unescaped(fields[4]),
            kind=kind.decode(),
            source=_unescaped(rest[0]),
            options=options,
        )
    except (IndexError, ValueError):
        return None


def mount_number(fd: int) -> int:
    """The number of the mount in which an open file is."""
    info = Path(f"/proc/self/fdinfo/{fd}").read_text()
    return int(info.partition("mnt_id:")[2].split()[0])


def _unescaped(text: bytes) -> Path:
    """Space, tab, newline, backslash and # stand there as \\NNN; other bytes as they are."""
    raw = _ESCAPED.sub(lambda match: bytes([int(match[1], 8) & 0xFF]), text)
    return Path(os.fsdecode(raw))
