"""The load that is traced: fio on a loop device in memory."""

import json
import os
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


@dataclass(frozen=True)
class Run:
    """One run of fio; `machine_s` is what all CPUs of the machine spent meanwhile."""

    ios: int
    iops: float
    machine_s: float


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
    before = _machine_s()
    done = subprocess.run(argv, capture_output=True, text=True, check=True, cwd="/")
    machine_s = _machine_s() - before
    sides = [job[side] for job in json.loads(done.stdout)["jobs"] for side in ("read", "write")]
    return Run(sum(s["total_ios"] for s in sides), sum(s["iops"] for s in sides), machine_s)


def process_s(pid: int) -> float:
    """CPU seconds of a process, of all its threads, in user mode and in system calls."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def _machine_s() -> float:
    """CPU seconds since boot in user mode, the kernel and interrupts; niced processes apart."""
    user, _, system, _, _, irq, softirq = Path("/proc/stat").read_text().split()[1:8]
    ticks = sum(map(int, (user, system, irq, softirq)))
    return ticks / os.sysconf("SC_CLK_TCK")
