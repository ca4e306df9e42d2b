# SPDX-License-Identifier: GPL-2.0-only
"""Words the plan of a replay, and its end."""

from collections.abc import Iterator
from pathlib import Path

from analyze.errors import IorecError
from analyze.escape import escape_for_terminal, shell_word
from analyze.replayed import Replay
from analyze.units import (
    format_bytes,
    format_count,
    format_counted,
    format_duration,
    format_rate,
)
from iorec.replay.planned import Plan, PlannedTarget
from iorec.replay.session import Prepared
from iorec.replay.target import Target

_INTERRUPTED = 130  # as shells have it


def plan_lines(prepared: Prepared) -> Iterator[str]:
    """What is to be done, onto what, and what is left out."""
    plan, settings = prepared.plan, prepared.settings
    yield escape_for_terminal(
        f"{settings.capture}: {format_counted(plan.ios, 'I/O')}, {format_bytes(plan.bytes)},"
        f" {_duration(prepared)}"
    )
    for target, planned in zip(prepared.targets, plan.targets, strict=True):
        yield from map(escape_for_terminal, _target_lines(target, planned))
    for reason, count in plan.left_out.items():
        yield escape_for_terminal(f"  left out: {format_count(count)}, {reason}")
    if plan.moved:
        yield f"  moved to fit: {format_counted(plan.moved, 'I/O')}"
    yield f"  loop: {_loop(prepared)}"
    yield (
        f"  by {prepared.engine}, the loop in {prepared.pacer}, at most {prepared.depth} in flight"
        f"{', in real time' if settings.is_realtime else ''}"
    )


def plan_warnings(prepared: Prepared) -> Iterator[str]:
    """What may be a surprise."""
    yield from map(escape_for_terminal, prepared.says)
    for target in prepared.targets:
        for warning in target.warnings:
            yield escape_for_terminal(f"{target.name}: {warning}")
    if prepared.plan.split:
        yield (
            f"{format_counted(prepared.plan.split, 'I/O')} are larger than one request of the"
            " target, which splits them"
        )
    if prepared.pacer == "Python":
        yield "no C compiler was found that works: the loop is in Python, good for some 10,000 IOPS"
    if prepared.engine == "libaio":
        yield "io_uring is not available: libaio is used, without flushes before data"


def end_lines(replay: Replay, capture: Path | None, *, is_quiet: bool) -> Iterator[str]:
    """What was done, as the loop itself saw it, and the word; if quiet the worst word alone."""
    # Only now: it starts threads.
    from analyze.fidelity import NOT_COMPARABLE

    if is_quiet:
        if replay.verdict == NOT_COMPARABLE:
            lines = "; ".join(replay.failed_lines)
            yield escape_for_terminal(f"warning: {NOT_COMPARABLE}: {lines}")
        return
    late = replay.lateness
    yield (
        f"{format_counted(_done(replay), 'I/O')} done of {format_count(replay.planned)},"
        f" {format_count(replay.failed)} failed{_errors(replay)},"
        f" {format_count(replay.short)} short; issued late by p50 {format_duration(late.p50_ns)},"
        f" p99 {format_duration(late.p99_ns)}, at most {format_duration(late.max_ns)}"
    )
    yield f"verdict: {replay.verdict}"
    for line in replay.failed_lines:
        yield f"  {escape_for_terminal(line)}"
    if capture is not None:
        name = escape_for_terminal(str(capture))
        yield f"{name}"
        yield f"next: iorec report {shell_word(capture)}"


def ending_error(replay: Replay) -> IorecError | None:
    """The error of a replay that did not do all; None if it did."""
    done = f"after {format_count(_done(replay))} of {format_count(replay.planned)} I/Os"
    match replay.ending:
        case "whole":
            return None
        case "interrupted":
            return IorecError(
                f"the replay was interrupted {done}", "the verdict is of these", _INTERRUPTED
            )
        case "too-late":
            return IorecError(
                f"the target cannot keep up: the replay ended {done}, when they were too late",
                "replay more slowly (--speed 0.5), in a closed loop, or with a larger"
                " --give-up-late",
            )
        case "vanished":
            return IorecError(
                f"the target fails every I/O{_errors(replay)}: the replay ended {done}",
                "see that the device is there: lsblk, and the kernel's log",
            )
        case "hung":
            left = format_counted(replay.issued - replay.completed, "I/O")
            return IorecError(
                f"the target does not answer: {left} did not end, {done}", "see the kernel's log"
            )
        case _:
            return IorecError(
                f"the kernel refused to take an I/O: the replay ended {done}",
                "please report this as a defect",
            )


def _errors(replay: Replay) -> str:
    errors = ", ".join(f"{name}: {format_count(count)}" for name, count in replay.errors.items())
    return f" ({errors})" if errors else ""


def _done(replay: Replay) -> int:
    """I/Os of the capture: without the flushes that were added for them."""
    return max(replay.completed - replay.added, 0)


def _duration(prepared: Prepared) -> str:
    span_ns, speed = prepared.plan.span_ns, prepared.settings.speed
    if speed is None:
        return "as fast as possible"
    rate = f", {format_rate(prepared.plan.ios * speed * 1e9 / span_ns)} IOPS" if span_ns else ""
    return (
        f"in {format_duration(span_ns / speed)}{'' if speed == 1 else f' (speed {speed:g})'}{rate}"
    )


def _target_lines(target: Target, planned: PlannedTarget) -> Iterator[str]:
    size = planned.file_bytes if target.size_bytes is None else target.size_bytes
    about = [format_bytes(size), target.model, target.serial and f"serial {target.serial}"]
    kind = "a new file" if target.size_bytes is None else None if target.is_device else "a file"
    said = ", ".join(filter(None, [kind, *about]))
    how = "WRITTEN TO" if target.is_written else "only read"
    yield f"  {planned.source} -> {target.path} ({said}), {how}"
    ios = ", ".join(f"{format_count(count)} {name}" for name, count in planned.ios.items())
    written = f", {format_bytes(planned.written_bytes)} written" if planned.written_bytes else ""
    yield (
        f"    {ios}{written}; from {format_bytes(planned.first_byte)} to"
        f" {format_bytes(planned.end_bytes)}"
    )


def _loop(prepared: Prepared) -> str:
    plan: Plan = prepared.plan
    if prepared.settings.speed is None:
        return "as fast as possible, in order"
    if not plan.waiting_threads:
        return "open, at the captured times"
    waiting = format_counted(plan.waiting_threads, "thread")
    others = f"; open for {format_count(plan.other_threads)} others" if plan.other_threads else ""
    return f"closed for {waiting} that wait for their I/Os{others}"
