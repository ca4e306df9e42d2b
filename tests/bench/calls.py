# SPDX-License-Identifier: GPL-2.0-only
"""What a system call takes longer while calls are recorded, beside other tracers of calls.

The kernel takes a slower way into and out of all calls while any program traces one of them.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.bench.load import loop_device, run_fio
from tests.bench.stats import Spread, spread
from tests.bench.tracers import IOREC

_ROUNDS = 7
_CALLS = 200_000
_READY_S = 1.0
_HISTOGRAM = """
tracepoint:syscalls:sys_enter_pread64 { @start[tid] = nsecs; }
tracepoint:syscalls:sys_exit_pread64 /@start[tid]/
{ @[pid] = hist(nsecs - @start[tid]); delete(@start[tid]); }
"""
# By name: the command, and what it prints when it traces (None: nothing, so wait).
_WAYS: dict[str, tuple[tuple[str, ...], bytes | None]] = {
    "nothing": ((), None),
    # What the kernel takes itself as soon as anybody traces any call.
    "bpftrace, other calls": (
        ("bpftrace", "-e", "tracepoint:syscalls:sys_enter_fsync { @ = count(); }"),
        b"Attaching",
    ),
    "iorec, other calls": (
        (str(IOREC), "record", "-f", "-l", "syscall", "--syscall", "fsync", "-o", "a.parquet"),
        b"recording ",
    ),
    "iorec": ((str(IOREC), "record", "-f", "-l", "syscall", "-o", "b.parquet"), b"recording "),
    "iorec, with waits": (
        (str(IOREC), "record", "-f", "-l", "syscall,wait", "-o", "c.parquet"),
        b"recording ",
    ),
    "bpftrace, a histogram": (("bpftrace", "-e", _HISTOGRAM), b"Attaching"),
    "perf trace": (("perf", "trace", "-a", "-e", "pread64", "-o", "perf.txt"), None),
}
_LOOP = """
import os, resource, sys, time
fd, count = os.open(sys.argv[1], os.O_RDONLY), int(sys.argv[2])
def spent():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
for call in (os.getppid, lambda read=os.pread: read(fd, 4096, 0)):
    call()
    before = spent()
    for _ in range(count):
        call()
    print((spent() - before) / count * 1e9)
# Two processes that wake one another in turn, on one CPU.
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
(ours, wakes_us), (theirs, wakes_them) = os.pipe(), os.pipe()
count //= 10
if os.fork() == 0:
    for _ in range(count):
        os.read(theirs, 1)
        os.write(wakes_us, b"x")
    os._exit(0)
before = time.perf_counter()
for _ in range(count):
    os.write(wakes_them, b"x")
    os.read(ours, 1)
print((time.perf_counter() - before) / count / 2 * 1e9)
os.wait()
"""
_MEASURED = ("getppid_ns", "pread_ns", "switch_ns")


def measure() -> dict[str, Any]:
    """By way: ns of CPU that getppid(), which nobody wants, and a cached 4 KiB pread() take longer,
    and ns that it takes longer to wake another process by a pipe and wait for it: 2 calls, a wait.

    Of io_uring ns of CPU an operation, at saturation.
    """
    found: dict[str, list[tuple[float, ...]]] = {way: [] for way in _WAYS}
    uring: list[float] = []
    with loop_device() as (device, folder):
        ways = {way: it for way, it in _WAYS.items() if not it[0] or shutil.which(it[0][0])}
        for _ in range(_ROUNDS):
            for way, (command, ready) in ways.items():
                with _running(command, ready, folder):
                    found[way].append(_time_calls(folder / "disk"))
            uring.append(_uring_ns(device, folder))
    added = {}
    for way, times in found.items():
        if way == "nothing" or not times:
            continue
        pairs = list(zip(times, found["nothing"], strict=True))
        added[way] = {
            name: spread([a[place] - b[place] for a, b in pairs])
            for place, name in enumerate(_MEASURED)
        }
    return {"added": added, "uring_ns": spread(uring), "untraced": _untraced(found["nothing"])}


def _untraced(times: list[tuple[float, ...]]) -> dict[str, Spread]:
    return {name: spread([one[place] for one in times]) for place, name in enumerate(_MEASURED)}


def _time_calls(file: Path) -> tuple[float, ...]:
    done = subprocess.run(
        [sys.executable, "-c", _LOOP, str(file), str(_CALLS)],
        capture_output=True,
        text=True,
        check=True,
    )
    return tuple(map(float, done.stdout.split()))


def _uring_ns(device: str, folder: Path) -> float:
    """CPU of fio and the kernel's threads an I/O, with the layer less without it."""
    options = ("--rw=randread", "--bs=4k", "--ioengine=io_uring", "--iodepth=32")
    plain = run_fio(device, options)
    command = (str(IOREC), "record", "-f", "-l", "uring", "-o", "u.parquet")
    with _running(command, b"recording ", folder):
        traced = run_fio(device, options)
    return (traced.cpu_s / traced.ios - plain.cpu_s / plain.ios) * 1e9


@contextmanager
def _running(command: tuple[str, ...], ready: bytes | None, folder: Path) -> Iterator[None]:
    if not command:
        yield
        return
    with (folder / "log").open("w+b") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + 30
            while ready is not None and ready not in os.pread(log.fileno(), 1 << 16, 0):
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.01)
            time.sleep(_READY_S)
            yield
        finally:
            process.send_signal(signal.SIGINT)
            process.wait()
