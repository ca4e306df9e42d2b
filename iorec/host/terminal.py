# SPDX-License-Identifier: GPL-2.0-only
"""Says how much room there is for the output."""

import os
import shutil
import sys


def output_width() -> int:
    """The columns of the terminal, or COLUMNS; without both there is room for any line."""
    if os.environ.get("COLUMNS") or sys.stdout.isatty():
        return shutil.get_terminal_size().columns
    return sys.maxsize
