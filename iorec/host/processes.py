# SPDX-License-Identifier: GPL-2.0-only
"""Describes the processes that submit I/Os, while they are there."""

import os
import re
import subprocess
import threading
import time
from collections import OrderedDict
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

from iorec.host.escape import escape_name
from iorec.host.notes import Notes

_PART = "processes"
# Of some 500 bytes each, and up to 6 KiB; those used longest ago are forgotten first.
_MOST_PROCESSES = 10_000
_MOST_CMDLINE_BYTES = 1024
_CUT = "..."
_PATIENCE_S = 0.5
_MOST_HANGS = 8
_KTHREADD = 2  # the parent of all kernel threads
# What set_ps_display() of PostgreSQL puts an activity behind: user, database and host of a backend,
# or the name of a process that has no connection; a cluster_name may come before.
_POSTGRES = re.compile(
    r"(postgres: (?:.*? (?:\[local\]|[^ ]+\(\d+\))"
    r"|(?:[^ ]+: )?(?:archiver|checkpointer|startup|walreceiver))) .*"
)
# Field 22 of /proc/PID/stat is in ticks of USER_HZ, 100 on every architecture (proc(5)).
_NS_PER_TICK = 10_000_000


class Seen(NamedTuple):
    """What the kernel programs say of a process.

    `start_ns` is after boot, `comm` its leader's, and `exec_id` another one after each exec.
    """

    pid: int
    start_ns: int
    ppid: int
    uid: int
    comm: bytes
    exec_id: int = 0


class Process(NamedTuple):
    """A process as ps(1) shows it; of an unknown one every field is None.

    `name` is its title if it has set one (`postgres: checkpointer`), else the comm of its leader.
    One of PostgreSQL is without the activity, to stay the same: `postgres: app shop [local]`.
    """

    name: str | None = None
    cmdline: str | None = None
    username: str | None = None
    ppid: int | None = None
    started_at: int | None = None  # nanoseconds since 1970


UNKNOWN_PROCESS = Process()


def cpu_s(pid: int) -> float:
    """The seconds of CPU that all threads of a process have used so far (proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) * _NS_PER_TICK / 1e9


def await_end(process: subprocess.Popen[Any], patience_s: float, least_s: float = 0.0) -> int:
    """The exit status of a child.

    TimeoutExpired if it used no more than `least_s` of CPU in that time: it hangs, whereas one on a
    busy machine gets on.
    """
    worked_s = -1.0
    while True:
        try:
            return process.wait(patience_s)
        except subprocess.TimeoutExpired:
            before_s, worked_s = worked_s, cpu_s(process.pid)
            if worked_s <= before_s + least_s:
                raise


class Processes:
    """Each process is looked at once, when it is first seen, and again when it has changed."""

    def __init__(self, notes: Notes, *, has_cmdlines: bool) -> None:
        self._notes = notes
        self._has_cmdlines = has_cmdlines
        self._known: OrderedDict[Seen, Process] = OrderedDict()
        self._usernames: dict[int, str] = {}
        self._booted_at = time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        self._reader = _Reader()
        with notes.guard(_PART):
            self._usernames = _read_usernames()

    def describe(self, seen: Seen) -> Process:
        """What is known of a process; one without a start (Linux before 5.11) is unknown."""
        if not seen.start_ns:
            return UNKNOWN_PROCESS
        found = self._known.get(seen)
        if found is None:
            return self._look_at(seen)
        self._known.move_to_end(seen)
        return found

    def _look_at(self, seen: Seen) -> Process:
        raw: bytes | None = b""  # also where it hangs: it is not asked again
        with self._notes.guard(_PART):
            raw = self._reader.read(seen) if self._has_cmdlines else b""
        found = self._described(seen, raw or b"")
        # One that is in the middle of exec(2) has none yet.
        if raw is not None:
            self._known[seen] = found
            if len(self._known) > _MOST_PROCESSES:
                self._known.popitem(last=False)
        return found

    def _described(self, seen: Seen, raw: bytes) -> Process:
        comm = escape_name(seen.comm)
        cmdline = escape_name(raw) if raw else None
        return Process(
            _name_of(cmdline) if cmdline and raw.startswith(seen.comm + b": ") else comm,
            cmdline,
            self._usernames.get(seen.uid, str(seen.uid)),
            seen.ppid,
            self._booted_at + seen.start_ns,
        )


def _name_of(title: str) -> str:
    """The title, without what a process of PostgreSQL was doing in the moment that it was read."""
    match = _POSTGRES.fullmatch(title)
    return match[1] if match else title


class _Reader:
    """Reads command lines in a thread: the memory of a process whose own disk hangs is locked.

    One that does not answer in time is left to itself, and another takes its place.
    """

    def __init__(self) -> None:
        self._left = 0
        self._queues: tuple[SimpleQueue[Seen], SimpleQueue[bytes | None]] | None = None

    def read(self, seen: Seen) -> bytes | None:
        """As _read_cmdline; TimeoutError if it takes too long, or did too often."""
        if self._left >= _MOST_HANGS:
            raise TimeoutError(f"not looked at, as {_MOST_HANGS} did not let be read")
        if self._queues is None:
            self._queues = SimpleQueue(), SimpleQueue()
            threading.Thread(target=_answer, args=self._queues, daemon=True).start()
        asked, answers = self._queues
        asked.put(seen)
        try:
            return answers.get(timeout=_PATIENCE_S)
        except Empty:
            self._left += 1
            self._queues = None
            raise TimeoutError("the command line of a process cannot be read: it hangs") from None


def _answer(asked: "SimpleQueue[Seen]", answers: "SimpleQueue[bytes | None]") -> None:
    while True:
        seen = asked.get()
        try:
            answers.put(_read_cmdline(seen))
        except Exception:  # no file of /proc looks so
            answers.put(b"")


def _read_cmdline(seen: Seen) -> bytes | None:
    """Its words, with a space between; none if it has ended or become another program.

    None if it may have some later.
    """
    try:
        folder = os.open(f"/proc/{seen.pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:  # whatever has its number later, the folder stays that of this one
        words = _read_file(folder, "cmdline", _MOST_CMDLINE_BYTES + 1)
        stat = _read_file(folder, "stat", 4096)
    except OSError:
        return b""
    finally:
        os.close(folder)
    comm, _, fields = stat.partition(b" (")[2].rpartition(b") ")
    start_ticks = int(fields.split()[19])
    if comm != seen.comm or start_ticks != seen.start_ns // _NS_PER_TICK:
        return b""
    if not words and _KTHREADD not in (seen.pid, seen.ppid):
        return None
    text = words.replace(b"\0", b" ").rstrip()
    if len(text) > _MOST_CMDLINE_BYTES:
        text = text[: _MOST_CMDLINE_BYTES - len(_CUT)] + _CUT.encode()
    return text


def _read_file(folder: int, name: str, size: int) -> bytes:
    fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
    try:
        return os.read(fd, size)
    finally:
        os.close(fd)


def _read_usernames() -> dict[int, str]:
    """Those of /etc/passwd: to ask a directory over the network would hold the recorder up."""
    names: dict[int, str] = {}
    for line in Path("/etc/passwd").read_bytes().splitlines():
        name, *fields = line.split(b":")
        if len(fields) > 1 and fields[1].isdigit():
            names.setdefault(int(fields[1]), escape_name(name))
    return names
