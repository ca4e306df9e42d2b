# SPDX-License-Identifier: GPL-2.0-only
"""Runs the loop in slices, and looks in between for signals and the feeder's death."""

import os
import time
from dataclasses import dataclass

from analyze.errors import IorecError
from iorec.host.clock import read_clocks
from iorec.host.signals import SignalWaiter
from iorec.replay.board import Board
from iorec.replay.feeder import Feeder
from iorec.replay.layout import COMPLETED, ISSUED, Ending, Pace
from iorec.replay.native import Run
from iorec.replay.pacing import Pacing
from iorec.replay.preparing import quiet_interpreter

_LEAD_NS = 50_000_000
_SLICE_NS = 20_000_000
_PAUSE_S = 0.001


@dataclass(frozen=True)
class Heard:
    """How the loop ended, and when it began by both clocks."""

    ending: Ending
    started_monotonic_ns: int
    wall_offset_ns: int
    failure: IorecError | None  # of the feeder


def play(
    pacing: Pacing,
    run: Run | None,
    board: Board,
    feeder: Feeder,
    signals: SignalWaiter,
    depth: int,
) -> Heard:
    """Runs the loop until its end, a signal, or until the feeder fails; without `run` in Python."""
    pace = pacing.pace
    pace.depth = depth
    if run is None:
        # Only now: it imports numpy, which starts threads.
        from iorec.replay.python_loops import python_run

        run = python_run(pace)
    failure: IorecError | None = None
    with quiet_interpreter():
        while not feeder.is_ready():
            signals.check()
            time.sleep(_PAUSE_S)
        offset_ns = read_clocks().offset_ns
        pace.start_ns = time.monotonic_ns() + _LEAD_NS
        ending = Ending.GOES_ON
        while ending is Ending.GOES_ON:
            ending = Ending(run(time.monotonic_ns() + _SLICE_NS))
            board.numbers[ISSUED], board.numbers[COMPLETED] = pace.issued, pace.ended
            failure = failure or _watch(pace, feeder, signals)
    return Heard(ending, pace.start_ns, offset_ns, failure)


def become_realtime() -> None:
    """Lets nothing but the kernel and other such processes interrupt this one.

    Without the flag the kernel's workers, and any thread, would inherit it.
    """
    policy = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
    try:
        os.sched_setscheduler(0, policy, os.sched_param(os.sched_get_priority_min(os.SCHED_FIFO)))
    except OSError as error:
        raise IorecError(
            f"--realtime is refused: {error.strerror}", "run it as root, or leave it out"
        ) from error


def end_realtime() -> None:
    """The ordinary policy again; the flag can only be taken away with privileges."""
    policy = os.SCHED_OTHER | os.SCHED_RESET_ON_FORK
    os.sched_setscheduler(0, policy, os.sched_param(0))


def _watch(pace: Pace, feeder: Feeder, signals: SignalWaiter) -> IorecError | None:
    """Has the loop end in order at a signal, or if the feeder has failed."""
    failure = None
    try:
        feeder.check()
    except IorecError as error:
        failure = error
    signals.wait(0.0)
    if (failure is not None or signals.asks_to_stop) and not pace.is_ending:
        pace.is_ending, pace.ending = 1, Ending.INTERRUPTED
        pace.drain_until_ns = time.monotonic_ns() + pace.give_up_ns
    return failure
