# SPDX-License-Identifier: GPL-2.0-only
"""Says how much room there is on a terminal, and leaves it as it was."""

import os
import shutil
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

# Leaves the alternate screen, shows the cursor, and ends pasting in brackets and reports of focus.
_PLAIN = b"\x1b[?1049l\x1b[?25h\x1b[?2004l\x1b[?1004l\x1b[<u\x1b[0m"


def output_width(stream: TextIO | None = None) -> int:
    """The columns of the terminal, or COLUMNS; without both there is room for any line.

    It is asked of stdout, or of another stream that the output goes to.
    """
    if os.environ.get("COLUMNS") or (stream or sys.stdout).isatty():
        return shutil.get_terminal_size().columns
    return sys.maxsize


@contextmanager
def restoring_terminal() -> Iterator[None]:
    """Undoes at the end what a full screen left behind that was killed."""
    try:
        before = termios.tcgetattr(sys.stdin)
    except (OSError, ValueError, termios.error):  # it is none, or closed
        yield
        return
    try:
        yield
    finally:
        with suppress(OSError, termios.error):  # it has hung up
            if termios.tcgetattr(sys.stdin) != before:
                termios.tcsetattr(sys.stdin, termios.TCSANOW, before)
                os.write(sys.stdin.fileno(), _PLAIN)
