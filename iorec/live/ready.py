# SPDX-License-Identifier: GPL-2.0-only
"""Checks, before anything is loaded, that there can be a full screen."""

import importlib.util
import os
import shlex
import sys

from analyze.errors import IorecError


def check_screen() -> None:
    """Raises IorecError without a terminal, or without what draws on it."""
    streams = (sys.stdin, sys.stdout, sys.stderr)
    is_shown = all(stream is not None and stream.isatty() for stream in streams)
    if not is_shown or os.environ.get("TERM") in (None, "dumb"):
        raise IorecError("top needs a terminal", "print tables: iorec top --batch", exit_code=2)
    if importlib.util.find_spec("textual") is None:
        raise IorecError(
            "top needs the Python package textual for a full screen",
            f"sudo {shlex.quote(sys.executable)} -m pip install textual, or: iorec top --batch",
        )
