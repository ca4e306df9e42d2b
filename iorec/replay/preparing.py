# SPDX-License-Identifier: GPL-2.0-only
"""Keeps the interpreter from interrupting the loop for a while."""

import contextlib
import ctypes
import gc
from collections.abc import Iterator

_PR_SET_TIMERSLACK = 29


@contextlib.contextmanager
def quiet_interpreter() -> Iterator[None]:
    """No collector meanwhile, and sleeps that end when they should."""
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()
