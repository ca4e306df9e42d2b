# SPDX-License-Identifier: GPL-2.0-only
"""Records every I/O of a Linux machine; `iorec.open` reads what was recorded (see `analyze`)."""

from analyze import IorecError, open  # noqa: A004 - as in iorec.open("run.parquet")

__all__ = ["IorecError", "open"]

__version__ = "0.1.0"
