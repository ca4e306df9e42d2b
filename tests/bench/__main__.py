# SPDX-License-Identifier: GPL-2.0-only
"""Runs benchmarks: `python -m tests.bench FOLDER [PART...]`, as root; without a part, all of them.

Each part prints its figures and writes FOLDER/PART.json.
"""

import json
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from tests.bench import (
    analysis,
    calls,
    drain,
    idle,
    kernel_time,
    live,
    overhead,
    replay,
    size,
    start,
)
from tests.bench.tracers import TRACERS, NotAvailableError, mounted_tracefs

PARTS: dict[str, Callable[[], dict[str, Any]]] = {
    **{f"overhead-{name}": partial(overhead.measure, it) for name, it in TRACERS.items()},
    "kernel-time": kernel_time.measure,
    "drain": drain.measure,
    "size": size.measure,
    "start": start.measure,
    "idle": idle.measure,
    "live": live.measure,
    "calls": calls.measure,
    "replay": replay.measure,
    "analysis-1": partial(analysis.measure, millions=1, times=10),
    "analysis-10": partial(analysis.measure, millions=10, times=5),
    "analysis-100": partial(analysis.measure, millions=100, times=3),
}


def main() -> None:
    """Measures the parts one after the other."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name in sys.argv[2:] or PARTS:
        started = time.monotonic()
        try:
            with mounted_tracefs():
                results = PARTS[name]()
        except NotAvailableError as error:
            results = {"not_available": str(error)}
        took_s = time.monotonic() - started
        print(f"{name}: {took_s:.0f} s, on {machine()}")
        _print(results, "  ")
        document = {"machine": machine(), "took_s": took_s, "results": results}
        text = json.dumps(document, indent=2, default=asdict)
        (folder / f"{name}.json").write_text(text + "\n")


def machine() -> str:
    """What this machine is, in one line."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    memory_gib = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / (1 << 30)
    virtual = ", virtual" if "hypervisor" in Path("/proc/cpuinfo").read_text() else ""
    return (
        f"{os.cpu_count()} CPUs ({cpu}{virtual}), {memory_gib:.0f} GiB, Linux {platform.release()}"
    )


def _print(results: dict[str, Any], indent: str) -> None:
    for name, value in results.items():
        if isinstance(value, dict):
            print(f"{indent}{name}")
            _print(value, indent + "  ")
        else:
            print(f"{indent}{name}: {value}")


if __name__ == "__main__":
    main()
