# SPDX-License-Identifier: GPL-2.0-only
"""Reads the capture in a process of its own: makes the plan, then keeps the loop in rows."""

import contextlib
import ctypes
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from analyze.errors import IorecError
from analyze.escape import escape_for_terminal
from analyze.typed_json import dump_object, parse_object
from analyze.units import format_count
from iorec.host.privileges import drop_privileges
from iorec.host.signals import STOP_SIGNALS
from iorec.host.workload import User
from iorec.replay.board import Board
from iorec.replay.layout import FILLED, FREED, HAS_FAILED, IS_ALL, IS_OVER, ISSUED, SLOTS
from iorec.replay.memory import Reserve
from iorec.replay.settings import Settings
from iorec.replay.target import Target

if TYPE_CHECKING:
    from iorec.replay.placing import Placer
    from iorec.replay.planned import Plan

_PR_SET_PDEATHSIG = 1
_PAUSE_S = 0.001
_SHOWN_S = 0.05
_PATIENCE_S = 0.5
_FEWEST_PLACED = 512  # at once, unless these are the last


@dataclass(frozen=True)
class Told:
    """What the feeder says before the first row: a plan, or an error."""

    plan: dict[str, Any] | None
    message: str = ""
    hint: str = ""
    exit_code: int = 1


class Line(Protocol):
    """Shows how far it is; a context manager."""

    is_wanted: bool

    def __enter__(self) -> "Line": ...

    def __exit__(self, *_: object) -> None: ...

    def show(self, what: str, share: float | None) -> None:
        """Draws the line again."""


class Feeder:
    """The process; a context manager, which ends it."""

    def __init__(
        self,
        settings: Settings,
        targets: Sequence[Target],
        board: Board,
        reserve: Reserve,
        user: User | None,
        line: Line,
        *,
        has_aio: bool,
    ) -> None:
        """Forks; call it before any thread is started."""
        reader, writer = os.pipe()
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(reader)
            _be_feeder(
                settings, targets, board, reserve, user, line, writer, parent, has_aio=has_aio
            )
        os.close(writer)
        self._reader = reader
        self._board = board
        self._is_waited_for = False

    def __enter__(self) -> "Feeder":
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        os.close(self._reader)

    def end(self) -> None:
        """Ends it; a second time does nothing."""
        self._board.numbers[IS_OVER] = 1
        patience_s = time.monotonic() + _PATIENCE_S  # in which it takes its line away
        while not self._is_waited_for and time.monotonic() < patience_s:
            self._is_waited_for = os.waitpid(self.pid, os.WNOHANG)[0] != 0
            time.sleep(_PAUSE_S)
        if not self._is_waited_for:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self._is_waited_for = True

    @property
    def fd(self) -> int:
        """Can be read when there is a plan, an error, or no feeder any more."""
        return self._reader

    def read_plan(self) -> "Plan":
        """The plan, or its error as IorecError."""
        # Only when privileges are dropped, or nothing else is done with them.
        text = b"".join(iter(lambda: os.read(self._reader, 1 << 16), b""))
        if not text:
            raise IorecError("the process that reads the capture ended", "see the messages above")
        told = Told(**json.loads(text))
        if told.plan is None:
            raise IorecError(told.message, told.hint, told.exit_code)
        from iorec.replay.planned import Plan

        return parse_object(Plan, told.plan)

    def is_ready(self) -> bool:
        """Whether enough rows are there to begin; IorecError if there will be none."""
        numbers = self._board.numbers
        self.check()
        return bool(numbers[IS_ALL]) or numbers[FILLED] - numbers[FREED] >= SLOTS // 4

    def check(self) -> None:
        """Raises IorecError if it has failed."""
        if not self._is_waited_for:
            self._is_waited_for = os.waitpid(self.pid, os.WNOHANG)[0] != 0
        if self._board.numbers[HAS_FAILED] or (
            self._is_waited_for and not self._board.numbers[IS_ALL]
        ):
            raise IorecError(
                "the capture could not be read to its end",
                "see the messages above; get a fresh copy",
            )


def _be_feeder(
    settings: Settings,
    targets: Sequence[Target],
    board: Board,
    reserve: Reserve,
    user: User | None,
    line: Line,
    writer: int,
    parent: int,
    *,
    has_aio: bool,
) -> None:
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_IGN)  # the loop decides
        for target in targets:
            if target.fd >= 0:
                os.close(target.fd)  # else the device would be held for as long as this lives
        drop_privileges(user, *settings_folders(settings))
        # After that: the kernel forgets it when credentials change.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == parent:
            _feed(settings, targets, board, reserve, line, writer, has_aio=has_aio)
        status = 0
    except BaseException:
        board.numbers[HAS_FAILED] = 1
        traceback.print_exc()
    finally:
        os._exit(status)


def settings_folders(settings: Settings) -> tuple[Path, ...]:
    """Those that are written to."""
    return () if settings.output is None else (settings.output.path.parent,)


def _feed(
    settings: Settings,
    targets: Sequence[Target],
    board: Board,
    reserve: Reserve,
    line: Line,
    writer: int,
    *,
    has_aio: bool,
) -> None:
    # Only now: numpy and Arrow start threads, and each keeps the privileges it starts with.
    from iorec.replay.placing import open_placer

    is_told = False
    try:
        with contextlib.ExitStack() as stack:
            placer = stack.enter_context(open_placer(settings, targets, reserve, has_aio=has_aio))
            _tell(writer, Told(json.loads(dump_object(placer.plan))))
            is_told = True
            if not settings.is_dry:
                _place_all(placer, board, stack.enter_context(line))
    except IorecError as error:
        if not is_told:
            _tell(writer, Told(None, error.message, error.hint, error.exit_code))
        board.numbers[HAS_FAILED] = is_told
        print(f"error: {escape_for_terminal(error.message)}" * is_told, file=sys.stderr)


def _tell(writer: int, told: Told) -> None:
    with os.fdopen(writer, "wb") as pipe:
        pipe.write(dump_object(told))


def _place_all(placer: "Placer", board: Board, line: Line) -> None:
    numbers, lock = board.numbers, threading.Lock()
    for part in placer.parts():
        placed = 0
        while placed < len(part):
            filled = numbers[FILLED]
            room = SLOTS - (filled - numbers[FREED])
            if numbers[IS_OVER]:
                return
            if room < min(_FEWEST_PLACED, len(part) - placed):
                _show(line, placer, numbers)
                time.sleep(_PAUSE_S)
                continue
            count = part.place(board, placed, filled, room)
            placed += count
            with lock:  # orders the stores before it, on processors that would not
                numbers[FILLED] = filled + count
    numbers[IS_ALL] = 1
    while not numbers[IS_OVER]:
        _show(line, placer, numbers)
        time.sleep(_SHOWN_S)


def _show(line: Line, placer: "Placer", numbers: memoryview) -> None:
    total, issued = placer.plan.ios, numbers[ISSUED]
    if line.is_wanted and issued:
        line.show(
            f"replaying: {format_count(issued)} of {format_count(total)} I/Os", issued / total
        )
