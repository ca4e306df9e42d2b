# SPDX-License-Identifier: GPL-2.0-only
"""Starts the command line, in which Ctrl-C ends quietly from the first moment on."""

import os
import signal
from types import FrameType


def main() -> None:
    """Runs the command that the arguments name and exits with its code."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not so below nohup
        signal.signal(signal.SIGINT, _exit)
    # numpy's BLAS, which nothing here uses, would start a thread for each CPU: 60 ms of each start.
    # Not in os.environ, which is what a recorded command gets.
    if "OPENBLAS_NUM_THREADS" not in os.environ:
        os.putenv("OPENBLAS_NUM_THREADS", "1")
    # Only now: the imports take a tenth of a second, and a Ctrl-C may come in any of them.
    from iorec.cli import main as run_command

    run_command()


def _exit(number: int, _: FrameType | None) -> None:
    """Ends at once: whoever has something to clean up handles the signal itself."""
    os._exit(128 + number)


if __name__ == "__main__":
    main()
