# SPDX-License-Identifier: GPL-2.0-only
"""Starts and stops iorec, and what it is compared with."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

IOREC = str(Path(sys.executable).with_name("iorec"))

_HERE = Path(__file__).parent
_ROOT = _HERE.parent.parent
_TRACEPOINTS = "block:block_io_start,block:block_rq_issue,block:block_rq_complete"
_START_LIMIT_S = 60


class NotAvailableError(Exception):
    """The tracer does not run on this machine; the message is its own."""


@dataclass(frozen=True)
class Tracer:
    """How to run a tracer, and how to read what it wrote.

    It writes `file`, or standard output, which is then kept there. `ready` is what it prints when
    it traces; `count` is the number of fio's I/Os in the file.
    """

    command: tuple[str, ...]
    file: str
    ready: str
    count: Callable[[Path], int]

    @property
    def writes_stdout(self) -> bool:
        return self.file not in self.command


@dataclass(frozen=True)
class Running:
    """A tracer at work."""

    pid: int
    started_s: float  # until it traced


@contextmanager
def mounted_tracefs() -> Iterator[None]:
    """Where perf and bpftrace look for tracepoints; without systemd nobody mounts it."""
    place = "/sys/kernel/tracing"
    was_mounted = any(Path(place).iterdir())
    if not was_mounted:
        subprocess.run(["mount", "-t", "tracefs", "tracefs", place], check=True)
    try:
        yield
    finally:
        if not was_mounted:
            subprocess.run(["umount", place], check=True)


@contextmanager
def running(tracer: Tracer, folder: Path) -> Iterator[Running]:
    """Traces until the end of the block; raises NotAvailableError."""
    output, log = folder / tracer.file, folder / "log"
    started = time.monotonic()
    with log.open("wb") as stderr, output.open("wb") as stdout:
        process = subprocess.Popen(
            tracer.command,
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(_ROOT)},
            stderr=stderr,
            stdout=stdout if tracer.writes_stdout else stderr,
        )
    try:
        _wait_until_ready(process, output if tracer.writes_stdout else log, log, tracer.ready)
        yield Running(process.pid, time.monotonic() - started)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], told: Path, log: Path, ready: str) -> None:
    deadline = time.monotonic() + _START_LIMIT_S
    while ready.encode() not in told.read_bytes():
        if process.poll() is not None or time.monotonic() > deadline:
            raise NotAvailableError(log.read_text(errors="replace").strip()[-1000:])
        time.sleep(0.005)


def _count_capture(output: Path) -> int:
    """An I/O of the load is a row in each layer; fio itself is read from another device."""
    columns = pq.read_table(output, columns=["comm", "device", "latency_ns", "layer"])
    comm, device, latency, layer = columns.columns
    is_load = pc.and_(pc.equal(comm, "fio"), pc.match_substring(device.cast("string"), "loop"))
    rows = pc.sum(pc.and_(is_load, pc.is_valid(latency))).as_py()
    return int(rows) // len(layer.unique())


def _count_lines(output: Path) -> int:
    with output.open("rb") as file:
        return sum(b" fio " in line for line in file)


def _count_samples(output: Path) -> int:
    """Three samples are an I/O."""
    argv = ["perf", "report", "--stats", "--stdio", "-i", str(output)]
    text = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    total = re.search(r"SAMPLE events: +(\d+)", text)
    assert total is not None, text
    return int(total[1]) // 3


def _iorec(layer: str) -> Tracer:
    command = (IOREC, "record", "-f", "-o", "run.parquet", "--layer", layer)
    return Tracer(command, "run.parquet", "recording ", _count_capture)


TRACERS = {
    "iorec": _iorec("request"),
    "iorec-bio": _iorec("bio"),
    "iorec-both": _iorec("request,bio"),
    "perf": Tracer(
        (
            *("perf", "record", "-a", "-e", _TRACEPOINTS, "-o", "perf.data"),
            *("--", "sh", "-c", "echo tracing; exec sleep 1000"),
        ),
        "perf.data",
        "tracing",
        _count_samples,
    ),
    "bpftrace": Tracer(
        ("bpftrace", str(_HERE / "biosnoop.bt")), "lines.txt", "tracing", _count_lines
    ),
    "bcc": Tracer(
        (sys.executable, "-m", "tests.bench.biosnoop"), "lines.txt", "tracing", _count_lines
    ),
}
