# SPDX-License-Identifier: GPL-2.0-only
"""Chooses between the loops in Python; to be imported when privileges are dropped."""

from collections.abc import Callable

from iorec.replay.closed import ClosedLoop
from iorec.replay.layout import Pace
from iorec.replay.pace import OpenLoop


def python_run(pace: Pace) -> Callable[[int], int]:
    """The loop on this struct, as native_run gives it."""
    return ClosedLoop(pace).run if pace.is_closed else OpenLoop(pace).run
