# SPDX-License-Identifier: GPL-2.0-only
"""Says how much room there is for the output."""

import os
import shutil
import sys
from typing import TextIO


def output_width(stream: TextIO | None = None) -> int:
    """The columns of the terminal, or COLUMNS; without both there is room for any line.

    It is asked of stdout, or of another stream that the output goes to.
    """
    if os.environ.get("COLUMNS") or (stream or sys.stdout).isatty():
        return shutil.get_terminal_size().columns
    return sys.maxsize
