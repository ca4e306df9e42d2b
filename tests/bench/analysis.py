"""Time and memory of what works on a file, by its number of I/Os."""

import os
import subprocess
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
    process = subprocess.Popen(
        [IOREC, *arguments], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, arguments
    return _Use(time.monotonic() - started, usage.ru_maxrss / 1024)
