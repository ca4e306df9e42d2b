# SPDX-License-Identifier: GPL-2.0-only
"""Replays a capture: prepares with privileges, drops them, runs the loop, and puts all back."""

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from analyze.errors import IorecError
from analyze.units import format_bytes
from iorec.host.clock import read_clocks
from iorec.host.privileges import drop_privileges
from iorec.host.signals import SignalWaiter
from iorec.host.workload import User, invoking_user
from iorec.replay.board import Board, make_board
from iorec.replay.engine import Engine
from iorec.replay.feeder import Feeder, Line, settings_folders
from iorec.replay.layout import COMPLETED, ISSUED, Ending, Pace
from iorec.replay.memory import Reserve
from iorec.replay.native import native_run
from iorec.replay.pacing import Pacing
from iorec.replay.planned import Plan
from iorec.replay.queues import QueueChanges, restore_left
from iorec.replay.settings import Settings
from iorec.replay.target import Target, open_targets
from iorec.replay.witness import Witness

_SPARE_REQUESTS = 8  # of a queue, for what others do there
_FILE_DEPTH = 64
_LEAD_NS = 50_000_000
_SLICE_NS = 20_000_000


@dataclass(frozen=True)
class Prepared:
    """What is known before the first I/O; `says` are lines beside the plan."""

    settings: Settings
    plan: Plan
    targets: tuple[Target, ...]
    engine: str
    pacer: str
    depth: int
    says: tuple[str, ...]


@dataclass(frozen=True)
class Played:
    """What the loop has done; `recorded` is the capture of it, if there is one."""

    prepared: Prepared
    pacing: Pacing
    ending: Ending
    started_monotonic_ns: int
    wall_offset_ns: int
    ring_flags: tuple[str, ...]
    recorded: Path | None
    warnings: tuple[str, ...]
    failure: IorecError | None  # of the recorder or the feeder


def replay_session(
    settings: Settings,
    announce: Callable[[Prepared], None],
    finish: Callable[[Played], None],
    line: Line,
) -> None:
    """Replays; `announce` gets the plan before anything is done, `finish` the end.

    Privileges are dropped when `finish` is called; what was recorded for the verdict alone is
    removed after it. An error before the first I/O leaves nothing changed.
    """
    user = invoking_user()
    with contextlib.ExitStack() as stack:
        signals = stack.enter_context(SignalWaiter())
        restored = restore_left()
        targets = stack.enter_context(
            open_targets(settings.mappings, settings.permission, is_dry=settings.is_dry)
        )
        is_recorded = settings.is_recorded and all(target.is_device for target in targets)
        if settings.output is not None and not is_recorded:
            raise IorecError("-o records block devices, and a target is none", "leave out -o", 2)
        engine = stack.enter_context(Engine())
        reserve = Reserve()
        is_closed = settings.loop != "open" and settings.speed is not None
        has_own_slots = is_closed or engine.ring is None
        board = make_board(None if has_own_slots or engine.ring is None else engine.ring.sqes)
        pacing = Pacing(engine, board, is_closed=is_closed, is_fast=settings.speed is None)
        run = native_run(pacing.pace)
        if run is None and engine.ring is None:
            raise IorecError(
                "libaio needs the loop in C, and there is no C compiler", "install gcc or clang"
            )
        feeder = stack.enter_context(
            Feeder(settings, targets, board, reserve, user, line, has_aio=engine.ring is None)
        )
        signals.wait_for(feeder.fd)
        plan = feeder.read_plan()
        prepared = Prepared(
            settings,
            plan,
            targets,
            engine.name,
            "C" if run else "Python",
            _depth(settings, targets),
            tuple(restored),
        )
        announce(prepared)
        if settings.is_dry:
            return
        _check_room(targets, plan)
        queues = stack.enter_context(QueueChanges())
        _set_queues(queues, targets, plan, settings)
        memory = reserve.memory(
            max(target.largest_read for target in plan.targets),
            max(target.largest_write for target in plan.targets),
        )
        reserve.fill(memory, settings.data)
        engine.register([target.fd for target in targets], memory)
        output = _output(settings, user, stack) if is_recorded else None
        witness = None
        if output is not None:
            witness = stack.enter_context(Witness(targets, output, is_forced=settings.is_forced))
            witness.wait_until_recording(signals)
        if settings.is_realtime:
            _become_realtime()
        drop_privileges(user, *settings_folders(settings))
        played = _play(prepared, pacing, run, board, feeder, signals, engine)
        if settings.is_realtime:
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        finish(_with_witness(played, witness, output))


def _depth(settings: Settings, targets: Sequence[Target]) -> int:
    """The most I/Os in flight: fewer than the queue has requests.

    Beyond that the kernel hands I/Os to workers, which lose their order, and the waiting is where
    the loop does not see it.
    """
    if settings.depth is not None:
        return settings.depth
    known = [target.queue.nr_requests for target in targets if target.has_requests]
    least = min((number for number in known if number), default=_FILE_DEPTH + _SPARE_REQUESTS)
    return max(least - _SPARE_REQUESTS, least // 2, 1)


def _check_room(targets: Sequence[Target], plan: Plan) -> None:
    """Gives new files their size."""
    for target, planned in zip(targets, plan.targets, strict=True):
        if target.size_bytes is None:
            try:
                os.ftruncate(target.fd, max(planned.end_bytes, planned.source_size_bytes or 0))
            except OSError as error:
                raise IorecError(
                    f"cannot make {target.path} {format_bytes(planned.end_bytes)} large:"
                    f" {error.strerror}",
                    "choose another file system",
                ) from error


def _set_queues(
    queues: QueueChanges, targets: Sequence[Target], plan: Plan, settings: Settings
) -> None:
    """Has requests neither merged nor split, where they are what was recorded."""
    for target, planned in zip(targets, plan.targets, strict=True):
        if target.numbers is None or not target.has_requests:
            continue
        if settings.layer != "bio" and target.queue.nomerges is not None:
            queues.set(target.numbers, "nomerges", 2)
        limit = target.queue.max_sectors_kb
        wanted_kb = -(-planned.largest_bytes // 1024)
        if limit is not None and target.largest_kb is not None and wanted_kb > limit:
            queues.set(target.numbers, "max_sectors_kb", min(wanted_kb, target.largest_kb))


def _output(settings: Settings, user: User | None, stack: contextlib.ExitStack) -> Path:
    """Where is recorded to; for the verdict alone a folder that is gone at the end."""
    if settings.output is not None:
        return settings.output.path
    folder = tempfile.mkdtemp(prefix="iorec-replay-")
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    if user is not None:
        os.chown(folder, user.uid, user.gid)
    return Path(folder, "replayed.parquet")


def _become_realtime() -> None:
    """Lets nothing but the kernel and other such processes interrupt the loop.

    Without the flag the kernel's workers, and any thread, would inherit it.
    """
    try:
        os.sched_setscheduler(
            0,
            os.SCHED_FIFO | os.SCHED_RESET_ON_FORK,
            os.sched_param(os.sched_get_priority_min(os.SCHED_FIFO)),
        )
    except OSError as error:
        raise IorecError(
            f"--realtime is refused: {error.strerror}", "run it as root, or leave it out"
        ) from error


def _play(
    prepared: Prepared,
    pacing: Pacing,
    run: Callable[[int], int] | None,
    board: Board,
    feeder: Feeder,
    signals: SignalWaiter,
    engine: Engine,
) -> Played:
    """Runs the loop until its end, a signal, or until the feeder fails."""
    # Only now: what it imports may start threads.
    from iorec.replay.preparing import quiet_interpreter
    from iorec.replay.python_loops import python_run

    pace = pacing.pace
    pace.depth, pace.give_up_ns = prepared.depth, prepared.settings.give_up_ns
    if prepared.plan.has_pairs:
        pace.depth = max(pace.depth, 2)
    run = run or python_run(pace)
    failure: IorecError | None = None
    with quiet_interpreter():
        while not feeder.is_ready():
            signals.check()
            time.sleep(0.001)
        clocks = read_clocks()
        pace.start_ns = time.monotonic_ns() + _LEAD_NS
        ending = Ending.GOES_ON
        while ending is Ending.GOES_ON:
            ending = Ending(run(time.monotonic_ns() + _SLICE_NS))
            board.numbers[ISSUED], board.numbers[COMPLETED] = pace.issued, pace.ended
            failure = failure or _watch(pace, feeder, signals)
    return Played(
        prepared,
        pacing,
        ending,
        pace.start_ns,
        clocks.offset_ns,
        engine.flags,
        None,
        (),
        failure,
    )


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


def _with_witness(played: Played, witness: Witness | None, output: Path | None) -> Played:
    """The same, when the recorder has written its capture."""
    from dataclasses import replace

    if witness is None:
        return played
    witness.end()
    try:
        warnings = tuple(witness.check())
    except IorecError as error:
        return replace(played, failure=played.failure or error)
    return replace(played, recorded=output, warnings=warnings)
