# SPDX-License-Identifier: GPL-2.0-only
"""How long the commands take until they do something."""

import shutil
import subprocess
import sys
import time
from typing import Any

from iorec.kernel.kept import FOLDER
from tests.bench.generate import SAMPLE
from tests.bench.load import loop_device
from tests.bench.stats import PAIRS, ratio, spread
from tests.bench.tracers import IOREC, TRACERS, running

_COMMANDS = {
    "python": (sys.executable, "-c", "pass"),
    "iorec --help": (IOREC, "--help"),
    "iorec report": (IOREC, "report", str(SAMPLE)),
}
_FIRST = "iorec, first"  # without kept programs
_TRACERS = ("iorec", "iorec-both", "bcc", "bpftrace")


def measure() -> dict[str, Any]:
    """Seconds until a command is done, or a tracer says that it traces."""
    seconds: dict[str, list[float]] = {name: [] for name in (*_COMMANDS, _FIRST, *_TRACERS)}
    with loop_device() as (_, folder):
        for _ in range(PAIRS):
            for name, command in _COMMANDS.items():
                seconds[name].append(_run_s(command))
            shutil.rmtree(FOLDER, ignore_errors=True)
            with running(TRACERS["iorec"], folder) as process:
                seconds[_FIRST].append(process.started_s)
            for name in _TRACERS:
                with running(TRACERS[name], folder) as process:
                    seconds[name].append(process.started_s)
    return {
        **{f"{name} s": spread(values) for name, values in seconds.items()},
        "iorec over bcc": ratio(seconds["iorec"], seconds["bcc"]),
    }


def _run_s(command: tuple[str, ...]) -> float:
    started = time.monotonic()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.monotonic() - started
