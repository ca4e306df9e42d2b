"""What recording costs: the same fio load without and with iorec, in turn.

usage: overhead.py [PAIRS] [SECONDS]    as root; prints medians and the ratio pair by pair as JSON

The load is 4 KiB random reads of a loop device on a file in memory: through io_uring at queue depth
64, which keeps two CPUs busy, and one at a time. CPU is what all CPUs of the machine spent, by
/proc/stat, idle time apart; so nothing else should run.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

IOREC = Path(sys.executable).with_name("iorec")
LOADS = {
    "saturated": ["--ioengine=io_uring", "--iodepth=64"],
    "one at a time": ["--ioengine=psync"],
}


def main() -> None:
    """Measures both loads."""
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    seconds = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        backing = Path(folder) / "disk"
        with backing.open("wb") as file:
            file.truncate(256 << 20)
        argv = ["losetup", "-f", "--show", str(backing)]
        loop = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
        try:
            results = {
                name: compare(loop, options, Path(folder), pairs, seconds)
                for name, options in LOADS.items()
            }
        finally:
            subprocess.run(["losetup", "-d", loop], check=True)
    machine = f"Linux {platform.release()}, {os.cpu_count()} CPUs"
    print(json.dumps({"machine": machine, "pairs": pairs, "loads": results}, indent=2))


def compare(
    loop: str, options: list[str], folder: Path, pairs: int, seconds: int
) -> dict[str, float]:
    """Medians of `pairs` pairs; the ratios are with over without iorec."""
    fio = [
        *("fio", "--name=load", f"--filename={loop}", "--direct=1", "--rw=randread", "--bs=4k"),
        *(f"--runtime={seconds}", "--time_based", "--output-format=json", *options),
    ]
    without, recorded, lost = [], [], 0
    for _ in range(pairs):
        without.append(measure(fio, folder))
        capture = folder / "run.parquet"
        recording = subprocess.Popen(
            [str(IOREC), "record", "-f", "-o", str(capture)], stderr=subprocess.PIPE, text=True
        )
        assert recording.stderr is not None
        while not recording.stderr.readline().startswith("recording "):
            pass
        recorded.append(measure(fio, folder))
        recording.terminate()
        recording.wait()
        info = subprocess.run([IOREC, "info", "--json", capture], capture_output=True, check=True)
        lost += json.loads(info.stdout)["captures"][0]["completeness"]["lost"]
    return {
        "iops_without": statistics.median(iops for iops, _ in without),
        "iops_with": statistics.median(iops for iops, _ in recorded),
        "iops_ratio": ratio([a for a, _ in recorded], [b for b, _ in without]),
        "cpu_ns_per_io_without": statistics.median(cpu for _, cpu in without),
        "cpu_ns_per_io_with": statistics.median(cpu for _, cpu in recorded),
        "cpu_ratio": ratio([a for _, a in recorded], [b for _, b in without]),
        "lost": lost,
    }


def measure(fio: list[str], folder: Path) -> tuple[float, float]:
    """IOPS, and ns of CPU of the whole machine for each I/O."""
    before = busy_s()
    done = subprocess.run(fio, capture_output=True, text=True, check=True, cwd=folder)
    busy = busy_s() - before
    read = json.loads(done.stdout)["jobs"][0]["read"]
    time.sleep(0.5)
    return read["iops"], busy / read["total_ios"] * 1e9


def busy_s() -> float:
    """Seconds of CPU spent since boot, idle and waiting apart."""
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n")[0].split()[1:]]
    return (sum(fields[:8]) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")


def ratio(a: list[float], b: list[float]) -> float:
    """The median of the ratios pair by pair."""
    return statistics.median(x / y for x, y in zip(a, b, strict=True))


if __name__ == "__main__":
    main()
