# SPDX-License-Identifier: GPL-2.0-only
"""Replays a capture: prepares with privileges, drops them, has the loop run, and puts all back."""

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from analyze.errors import IorecError
from analyze.units import format_bytes
from iorec.host.privileges import drop_privileges
from iorec.host.signals import SignalWaiter
from iorec.host.workload import User, invoking_user
from iorec.replay.board import Board, make_board
from iorec.replay.engine import Engine
from iorec.replay.feeder import Feeder, Line, settings_folders
from iorec.replay.memory import Reserve
from iorec.replay.native import Run, native_run
from iorec.replay.pacing import Pacing
from iorec.replay.planned import Plan
from iorec.replay.playing import Heard, become_realtime, end_realtime, play
from iorec.replay.queues import QueueChanges, restore_left
from iorec.replay.settings import Settings
from iorec.replay.target import Target, open_targets
from iorec.replay.uring import has_discard_command
from iorec.replay.witness import Witness

_SPARE_REQUESTS = 8  # of a queue, for what others do there
_FILE_DEPTH = 64


@dataclass(frozen=True)
class Prepared:
    """What is known before the first I/O; `says` are lines beside the plan."""

    settings: Settings
    plan: Plan
    targets: tuple[Target, ...]
    engine: str
    ring_flags: tuple[str, ...]
    pacer: str
    depth: int
    says: tuple[str, ...]


@dataclass(frozen=True)
class Played:
    """What the loop has done; `recorded` is the capture of it, if there is one."""

    prepared: Prepared
    pacing: Pacing
    heard: Heard
    recorded: Path | None
    warnings: tuple[str, ...]
    failure: IorecError | None  # of the recorder or the feeder


@dataclass(frozen=True)
class _Machine:
    """What does I/Os: the ring, its memory, and the loop; `run` is None for one in Python."""

    engine: Engine
    reserve: Reserve
    board: Board
    pacing: Pacing
    run: Run | None


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
    with ExitStack() as stack:
        signals = stack.enter_context(SignalWaiter())
        restored = restore_left()
        targets = stack.enter_context(
            open_targets(settings.mappings, settings.permission, is_dry=settings.is_dry)
        )
        is_recorded = _is_recorded(settings, targets)
        machine = _set_up(settings, stack)
        has_aio = machine.engine.ring is None
        feeder = stack.enter_context(
            Feeder(settings, targets, machine.board, machine.reserve, user, line, has_aio=has_aio)
        )
        signals.wait_for(feeder.fd)
        prepared = Prepared(
            settings=settings,
            plan=feeder.read_plan(),
            targets=targets,
            engine=machine.engine.name,
            ring_flags=machine.engine.flags,
            pacer="C" if machine.run else "Python",
            depth=_depth(settings, targets),
            says=tuple(restored),
        )
        announce(prepared)
        if settings.is_dry:
            return
        played = _go(prepared, machine, feeder, signals, stack, is_recorded=is_recorded)
        finish(played)


def _go(
    prepared: Prepared,
    machine: _Machine,
    feeder: Feeder,
    signals: SignalWaiter,
    stack: ExitStack,
    *,
    is_recorded: bool,
) -> Played:
    """Does what is planned; the stack puts back what that changes."""
    settings, user = prepared.settings, invoking_user()
    _ready_targets(prepared, machine, stack)
    output = _output(settings, user, stack) if is_recorded else None
    witness = None
    if output is not None:
        witness = stack.enter_context(
            Witness(prepared.targets, output, is_forced=settings.is_forced)
        )
        witness.wait_until_recording(signals)
    if settings.is_realtime:
        become_realtime()
    drop_privileges(user, *settings_folders(settings))
    heard = play(machine.pacing, machine.run, machine.board, feeder, signals, prepared.depth)
    feeder.end()  # before there is more to hold in memory
    if settings.is_realtime:
        end_realtime()
    played = Played(prepared, machine.pacing, heard, None, (), heard.failure)
    return _with_witness(played, witness, output)


def _is_recorded(settings: Settings, targets: Sequence[Target]) -> bool:
    is_possible = all(target.is_device for target in targets)
    if settings.output is not None and not is_possible:
        raise IorecError(
            "-o records block devices, and a target is none", "leave out -o", exit_code=2
        )
    return settings.is_recorded and is_possible


def _set_up(settings: Settings, stack: ExitStack) -> _Machine:
    """The ring and the loop, before the feeder is forked, which shares their memory."""
    engine = stack.enter_context(Engine())
    is_fast = settings.speed is None
    is_closed = settings.loop != "open" and not is_fast
    shares_ring = engine.ring is not None and not is_closed
    board = make_board(engine.ring.sqes if engine.ring is not None and shares_ring else None)
    pacing = Pacing(engine, board, is_closed=is_closed, is_fast=is_fast)
    pacing.pace.give_up_ns = settings.give_up_ns
    run = native_run(pacing.pace)
    if run is None and engine.ring is None:
        raise IorecError(
            "libaio needs the loop in C, and there is no C compiler", "install gcc or clang"
        )
    return _Machine(engine, Reserve(), board, pacing, run)


def _ready_targets(prepared: Prepared, machine: _Machine, stack: ExitStack) -> None:
    """Sizes new files, sets the queues, and fills and registers memory."""
    plan, targets = prepared.plan, prepared.targets
    _size_files(targets, plan)
    queues = stack.enter_context(QueueChanges())
    _set_queues(queues, targets, plan, prepared.settings)
    memory = machine.reserve.memory(
        max(target.largest_read for target in plan.targets),
        max(target.largest_write for target in plan.targets),
    )
    machine.reserve.fill(memory, prepared.settings.data)
    fds = [target.fd for target in targets]
    if _discards_by_ioctl(prepared, machine):
        machine.pacing.discard_by_ioctl(fds)
    machine.engine.register(fds, memory)


def _discards_by_ioctl(prepared: Prepared, machine: _Machine) -> bool:
    """Whether there are discards, and a kernel or device that only does them while one waits.

    A device that takes bios alone refuses those that are not to wait.
    """
    discarding = [
        target
        for target, planned in zip(prepared.targets, prepared.plan.targets, strict=True)
        if "discard" in planned.ios
    ]
    is_uring = machine.engine.ring is not None
    return is_uring and any(
        not target.has_requests or not has_discard_command(target.fd) for target in discarding
    )


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


def _size_files(targets: Sequence[Target], plan: Plan) -> None:
    """Gives new files their size."""
    for target, planned in zip(targets, plan.targets, strict=True):
        if target.size_bytes is None:
            try:
                os.ftruncate(target.fd, planned.file_bytes)
            except OSError as error:
                raise IorecError(
                    f"cannot make {target.path} {format_bytes(planned.file_bytes)} large:"
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


def _output(settings: Settings, user: User | None, stack: ExitStack) -> Path:
    """Where is recorded to; for the verdict alone a folder that is gone at the end."""
    if settings.output is not None:
        return settings.output.path
    folder = tempfile.mkdtemp(prefix="iorec-replay-")
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    if user is not None:
        os.chown(folder, user.uid, user.gid)
    return Path(folder, "replayed.parquet")


def _with_witness(played: Played, witness: Witness | None, output: Path | None) -> Played:
    """The same, when the recorder has written its capture."""
    if witness is None:
        return played
    witness.end()
    try:
        warnings = tuple(witness.check())
    except IorecError as error:
        return replace(played, failure=played.failure or error)
    return replace(played, recorded=output, warnings=warnings)
