# SPDX-License-Identifier: GPL-2.0-only
"""Commands that show I/Os while they happen: started, given something to show, and ended."""

import signal
import subprocess
from pathlib import Path
from typing import Any

from tests.kernel.conftest import IOREC, LoopDevice, run


def start_viewer(*words: str | Path, **others: Any) -> subprocess.Popen[str]:
    """Starts a command of iorec; returns when it records."""
    process = subprocess.Popen(
        [str(IOREC), *map(str, words)],
        stderr=subprocess.PIPE,
        text=True,
        **{"stdout": subprocess.PIPE, **others},
    )
    assert process.stderr is not None
    assert process.stderr.readline().startswith("recording ")
    return process


def stop(process: subprocess.Popen[str], number: int = signal.SIGINT) -> tuple[str, str]:
    """Ends it, and returns what it printed and said."""
    process.send_signal(number)
    return process.communicate(timeout=60)


def read(loop: LoopDevice, count: int) -> None:
    """So many reads of 4 KiB by dd."""
    run("dd", f"if={loop.path}", "of=/dev/null", "bs=4k", f"count={count}", "iflag=direct",
        stderr=subprocess.DEVNULL)  # fmt: skip
