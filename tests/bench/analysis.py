# SPDX-License-Identifier: GPL-2.0-only
"""Time and memory of what works on a file, by its number of I/Os."""

import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.generate import write_spool
from tests.bench.stats import spread
from tests.bench.tracers import IOREC

_COMMANDS = {
    "report": ("report", "run.parquet"),
    "report --histogram": ("report", "--histogram", "run.parquet"),
    "plot": ("plot", "-f", "-o", "run.png", "run.parquet"),
}

# Runs a command and prints its peak of memory in KiB. A process begins with the peak of the one it
# was forked from, so that one must be small.
_LAUNCHER = """
import os, subprocess, sys
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
print(usage.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status))
"""


@dataclass(frozen=True)
class _Use:
    seconds: float
    peak_mib: float


def measure(millions: int, times: int) -> dict[str, Any]:
    """Of some million I/Os; `recover` is the conversion at the end of a recording."""
    with tempfile.TemporaryDirectory(prefix="iorec-bench-", dir="/var/tmp") as name:
        folder = Path(name)
        ios = write_spool(folder / "run.parquet.part", millions * 1_000_000)
        uses = {"recover": [_run(folder, ("recover", "run.parquet.part"))]}
        for _ in range(times):
            for command, arguments in _COMMANDS.items():
                uses.setdefault(command, []).append(_run(folder, arguments))
    return {
        "ios": ios,
        **{
            command: {
                "seconds": spread([use.seconds for use in of_command]),
                "peak_mib": spread([use.peak_mib for use in of_command]),
            }
            for command, of_command in uses.items()
        },
    }


def _run(folder: Path, arguments: tuple[str, ...]) -> _Use:
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", _LAUNCHER, IOREC, *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    return _Use(time.monotonic() - started, int(done.stdout) / 1024)
