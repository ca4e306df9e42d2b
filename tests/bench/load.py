# SPDX-License-Identifier: GPL-2.0-only
"""The load that is traced: fio on a loop device in memory."""

import json
import resource
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SECONDS = 1.5
RANDOM = ("--rw=randread", "--bs=4k")
SATURATED = (*RANDOM, "--ioengine=io_uring", "--iodepth=64")

_DEVICE_BYTES = 256 << 20
_KTHREADD = 2  # the parent of every thread of the kernel


@dataclass(frozen=True)
class Run:
    """One run of fio; `cpu_s` is what fio and all threads of the kernel spent."""

    ios: int
    iops: float
    cpu_s: float


@contextmanager
def loop_device() -> Iterator[tuple[str, Path]]:
    """A device whose data is in memory, and a folder in memory for what is written."""
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="iorec-bench-") as folder:
        backing = Path(folder) / "disk"
        with backing.open("wb") as file:
            file.truncate(_DEVICE_BYTES)
        argv = ["losetup", "-f", "--show", str(backing)]
        device = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
        try:
            yield device, Path(folder)
        finally:
            subprocess.run(["losetup", "-d", device], check=True)


def run_fio(device: str, options: tuple[str, ...], seconds: float = SECONDS) -> Run:
    """Direct I/O to the device."""
    argv = [
        *("fio", "--name=load", f"--filename={device}", "--direct=1", "--time_based"),
        *(f"--runtime={round(seconds * 1000)}ms", "--output-format=json", *options),
    ]
    children_before, kernel_before = _children_s(), _kernel_threads_ns()
    done = subprocess.run(argv, capture_output=True, text=True, check=True, cwd="/")
    kernel_ns = sum(
        ns - kernel_before.get(thread, 0) for thread, ns in _kernel_threads_ns().items()
    )
    cpu_s = _children_s() - children_before + kernel_ns / 1e9
    sides = [job[side] for job in json.loads(done.stdout)["jobs"] for side in ("read", "write")]
    return Run(sum(s["total_ios"] for s in sides), sum(s["iops"] for s in sides), cpu_s)


def process_s(pid: int) -> float:
    """CPU seconds of a process, of all its threads, in user mode and in system calls."""
    return sum(map(_thread_ns, Path(f"/proc/{pid}/task").iterdir())) / 1e9


def _children_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _kernel_threads_ns() -> dict[str, int]:
    threads = Path(f"/proc/{_KTHREADD}/task/{_KTHREADD}/children").read_text().split()
    return {thread: _thread_ns(Path(f"/proc/{thread}")) for thread in threads}


def _thread_ns(folder: Path) -> int:
    try:
        return int((folder / "schedstat").read_text().split()[0])
    except (FileNotFoundError, ProcessLookupError):  # it has ended
        return 0
