# SPDX-License-Identifier: GPL-2.0-only
"""Ends what tests leave running: whatever they have started carries a mark in its environment."""

import contextlib
import os
import signal
import time
from pathlib import Path

_MARK = ("IOREC_TESTS_OF", str(os.getpid()))


def mark_children() -> None:
    """From now on every process that is started here, or by such a one, can be found."""
    os.environ.update([_MARK])


def end_leftovers() -> None:
    """Kills them, in whatever group, session or stop they are; returns when all are gone."""
    deadline = time.monotonic() + 10
    while left := running_marked():
        assert time.monotonic() < deadline, f"still running: {left}"
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def running_marked() -> list[int]:
    """Zombies have no environment any more."""
    mark, found = "=".join(_MARK).encode(), []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if mark in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
    return found


def attached_programs() -> int:
    """How many programs the processes of tests keep attached, by the links that do so."""
    count = 0
    for pid in running_marked():
        with contextlib.suppress(OSError):  # it has ended
            count += sum(
                "bpf" in path.readlink().name for path in Path(f"/proc/{pid}/fd").iterdir()
            )
    return count
