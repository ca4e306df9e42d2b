# SPDX-License-Identifier: GPL-2.0-only
"""What it costs to look on, beside what it costs to record: the same loads in turn."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.bench.load import RANDOM, SATURATED, loop_device, process_s, run_fio
from tests.bench.stats import ratio, spread
from tests.bench.tracers import IOREC

_ROUNDS = 5
_IDLE_S = 5
_SETTLE_S = 1.5  # a viewer is loaded by then
_LOADS = {
    "10,000 a second": (*RANDOM, "--ioengine=io_uring", "--iodepth=4", "--rate_iops=10000"),
    "saturated": SATURATED,
}
_WAYS = {
    "record": ("record", "-f", "-o", "run.parquet"),
    "flight": ("record", "--flight", "30s", "--trigger", "latency > 1h", "-o", "flight.parquet"),
    "watch": ("watch",),
    "watch --json": ("watch", "--json"),
    "top --batch": ("top", "--batch"),
}


def measure() -> dict[str, Any]:
    """By way: ns of CPU an I/O in its recorder and in its viewer, IOPS as with record, idle cost.

    A viewer leaves out what it is too slow for, so at saturation it takes what is left of a CPU.
    """
    spent: dict[str, dict[str, dict[str, list[float]]]] = {
        way: {load: {"recorder_ns": [], "viewer_ns": [], "iops": []} for load in _LOADS}
        for way in _WAYS
    }
    idle: dict[str, list[float]] = {way: [] for way in _WAYS}
    with loop_device() as (device, folder):
        for _ in range(_ROUNDS):
            for way, words in _WAYS.items():
                with _running((*words, "-d", device), folder) as pid:
                    for load, options in _LOADS.items():
                        before = _family_s(pid)
                        run = run_fio(device, options)
                        after = _family_s(pid)
                        found = spent[way][load]
                        for name, a, b in zip(("recorder_ns", "viewer_ns"), before, after,
                                              strict=True):  # fmt: skip
                            found[name].append((b - a) / run.ios * 1e9)
                        found["iops"].append(run.iops)
                    time.sleep(1)
                    before = _family_s(pid)
                    time.sleep(_IDLE_S)
                    idle[way].append((sum(_family_s(pid)) - sum(before)) / _IDLE_S * 3600)
    return {
        way: {
            "idle_s_per_hour": spread(idle[way]),
            **{
                load: {
                    "recorder_ns": spread(found["recorder_ns"]),
                    "viewer_ns": spread(found["viewer_ns"]),
                    "iops_ratio": ratio(found["iops"], spent["record"][load]["iops"]),
                }
                for load, found in spent[way].items()
            },
        }
        for way in _WAYS
    }


@contextmanager
def _running(words: tuple[str, ...], folder: Path) -> Iterator[int]:
    """The process that records, while it does."""
    with (folder / "log").open("w+b") as log:
        process = subprocess.Popen(
            (IOREC, *words), cwd=folder, stdout=subprocess.DEVNULL, stderr=log
        )
        try:
            while b"recording " not in os.pread(log.fileno(), 1 << 16, 0):
                assert process.poll() is None
                time.sleep(0.01)
            time.sleep(_SETTLE_S)
            yield process.pid
        finally:
            process.send_signal(signal.SIGINT)
            process.wait()


def _family_s(pid: int) -> tuple[float, float]:
    """CPU seconds of the recorder, and of its viewer."""
    children = [
        int(child)
        for task in Path(f"/proc/{pid}/task").iterdir()
        for child in (task / "children").read_text().split()
    ]
    viewers = [child for child in children if b"iorec.live" in _cmdline(child)]
    return process_s(pid), sum(map(process_s, viewers))


def _cmdline(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
