# SPDX-License-Identifier: GPL-2.0-only
"""How well replayers keep time: iorec, btreplay and fio on the same traces, seen by a recorder.

The target is a loop device in memory. Contenders take turns; each is seen from outside by
`iorec record`, and judged as captures of unknown replayers are: from its own earliest I/O on.
"""

import os
import resource
import shutil
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from analyze.fidelity import Measured
from analyze.fidelity_measures import compare
from tests.bench.tracers import IOREC, NotAvailableError
from tests.builders import START_NS, table, write_capture

RATES = (1_000, 10_000, 50_000, 100_000)
SECONDS = 2
ROUNDS = 3
_DEVICE_BYTES = 256 << 20
_BLOCK = 4096
# linux/blktrace_api.h of btrecord: version, options; each bunch a count and a time.
_BTREPLAY_VERSION = 1 << 16
_FIFO = ("chrt", "-f", "1")


def measure(rates: tuple[int, ...] = RATES, rounds: int = ROUNDS) -> dict[str, Any]:
    """For each rate and contender, medians over the rounds; the load average is the greatest."""
    for program in ("btreplay", "fio", "chrt"):
        if shutil.which(program) is None:
            raise NotAvailableError(f"{program} is not installed")
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder, _loop(Path(folder)) as device:
        for rate in rates:
            trace = _make_trace(Path(folder), rate)
            contenders = _contenders(trace, Path(folder), device)
            found: dict[str, list[dict[str, float]]] = {name: [] for name in contenders}
            for _ in range(rounds):
                for name, command in contenders.items():
                    found[name].append(_run(trace, Path(folder), device, command))
            results[f"{rate} IOPS"] = {name: _medians(runs) for name, runs in found.items()}
    return results


def _contenders(trace: Path, folder: Path, device: str) -> dict[str, list[str]]:
    ours = [IOREC, "replay", str(trace), "--map", f"loop0={device}", "--no-record", "-q"]
    ours += ["--loop", "open", "--give-up-late", "60s"]
    return {
        "iorec": ours,
        "iorec --realtime": [*ours, "--realtime"],
        "btreplay": [*_FIFO, "btreplay", "-d", _for_btreplay(trace, folder, device), "-F"],
        "fio": [
            *_FIFO,
            "fio",
            "--name=replay",
            f"--read_iolog={_for_fio(trace, folder, device)}",
            "--ioengine=io_uring",
            "--iodepth=128",
            "--direct=1",
            "--thread",
            "--output=/dev/null",
        ],
    }


@contextmanager
def _loop(folder: Path) -> Iterator[str]:
    disk = folder / "disk"
    with disk.open("wb") as file:
        file.truncate(_DEVICE_BYTES)
    made = subprocess.check_output(["losetup", "-f", "--show", disk], text=True)
    device = made.strip()
    queue = Path(f"/sys/block/{Path(device).name}/queue")
    before = (queue / "nomerges").read_text()
    (queue / "scheduler").write_text("none")
    (queue / "nomerges").write_text("2")
    try:
        yield device
    finally:
        (queue / "nomerges").write_text(before)
        subprocess.run(["losetup", "-d", device], check=True)


def _make_trace(folder: Path, rate: int) -> Path:
    """Random reads at random times."""
    rng = np.random.default_rng(rate)
    count = rate * SECONDS
    times = START_NS + np.cumsum(rng.exponential(1e9 / rate, count)).astype(np.int64)
    offsets = rng.integers(0, _DEVICE_BYTES // _BLOCK, count) * _BLOCK
    return write_capture(folder / f"{rate}.parquet", table(count, time=times, offset=offsets))


def _columns(trace: Path) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    import pyarrow.parquet as pq

    rows = pq.read_table(trace, columns=["time", "offset"])
    times = rows["time"].cast("int64").to_numpy()
    return times - times[0], rows["offset"].to_numpy()


def _for_btreplay(trace: Path, folder: Path, device: str) -> str:
    """A folder with one file, each I/O a bunch of its own."""
    times, offsets = _columns(trace)
    made = folder / f"bt{trace.stem}"
    made.mkdir(exist_ok=True)
    with (made / f"{Path(device).name}.replay.0").open("wb") as file:
        file.write(struct.pack("<4Q", _BTREPLAY_VERSION, 0, len(times), len(times)))
        for time_ns, offset in zip(times.tolist(), offsets.tolist(), strict=True):
            file.write(struct.pack("<4QI4x", 1, time_ns, offset // 512, _BLOCK, 1))
    return str(made)


def _for_fio(trace: Path, folder: Path, device: str) -> str:
    times, offsets = _columns(trace)
    made = folder / f"{trace.stem}.log"
    with made.open("w") as file:
        file.write(f"fio version 3 iolog\n0 {device} add\n0 {device} open\n")
        for time_ns, offset in zip(times.tolist(), offsets.tolist(), strict=True):
            file.write(f"{time_ns // 1000} {device} read {offset} {_BLOCK}\n")
        file.write(f"{int(times[-1]) // 1000} {device} close\n")
    return str(made)


def _run(trace: Path, folder: Path, device: str, command: list[str]) -> dict[str, float]:
    seen = folder / "seen.parquet"
    recorder = subprocess.Popen(
        [IOREC, "record", "-f", "-o", seen, "-d", Path(device).name],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert recorder.stderr is not None
    next(line for line in recorder.stderr if line.startswith("recording "))
    load = os.getloadavg()[0]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=120, cwd=folder)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    recorder.send_signal(signal.SIGINT)
    recorder.communicate(timeout=120)
    measured = compare(trace, seen).measured
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {**_figures(measured), "cpu_s": cpu_s, "load": load}


def _figures(measured: Measured) -> dict[str, float]:
    late = measured.lateness
    assert late is not None
    return {
        "p50_us": late.p50_ns / 1000,
        "p99_us": late.p99_ns / 1000,
        "p999_us": late.p999_ns / 1000,
        "late_percent": 100 * (measured.late_share or 0),
        "order_percent": 100 * (measured.order_kept or 0),
        "duration_ratio": measured.duration_ratio or 0,
        "matched_percent": 100 * measured.matched / measured.asked,
    }


def _medians(runs: list[dict[str, float]]) -> dict[str, Any]:
    made: dict[str, Any] = {
        key: round(statistics.median(run[key] for run in runs), 4) for key in runs[0]
    }
    made["load"] = max(run["load"] for run in runs)
    made["late_percent_of_rounds"] = [round(run["late_percent"], 3) for run in runs]
    return made


if __name__ == "__main__":
    print(measure(tuple(map(int, sys.argv[1:])) or RATES))
