# SPDX-License-Identifier: GPL-2.0-only
"""Renders where the time of calls went, as text."""

from collections.abc import Sequence

from analyze.errnos import errno_name
from analyze.escape import escape_for_terminal
from analyze.explain import (
    FOR_A_CPU,
    ON_A_CPU,
    RAN_OR_LOST,
    AllCalls,
    ExplainedCall,
    Explanation,
    Part,
    Step,
    Wait,
    shorten_place,
)
from analyze.render.table import Column, cell_text, fit_columns, format_columns, wrap_units
from analyze.units import (
    format_bytes,
    format_count,
    format_counted,
    format_duration,
    format_elapsed,
    format_percent,
)

_MOST_STEPS = 12
_MOST_PLACES = 8
_BAR = 30
_NOT_ENDED = "has not ended"


def render_explained(explanation: Explanation, origin_ns: int, width: int) -> str:
    """All calls, then some with their parts and I/Os; lines fit `width` if names allow it."""
    if not explanation.calls:
        return "no calls for files\n"
    blocks = [] if explanation.all is None else [_all_lines(explanation.all, width)]
    blocks += [
        [
            *_title_lines(call, origin_ns, width),
            *_part_lines(call.parts),
            *_wait_lines(call.waits, width),
            *_step_lines(call, width),
        ]
        for call in explanation.calls
    ]
    return "\n\n".join("\n".join(lines) for lines in blocks) + "\n"


def _all_lines(found: AllCalls, width: int) -> list[str]:
    waits = found.waits[:_MOST_PLACES]
    columns = [
        Column("CALL", [wait.op for wait in waits], is_text=True),
        Column("TIME", [format_duration(wait.time_ns) for wait in waits]),
        Column("SHARE", [format_percent(wait.share) for wait in waits]),
        Column("TIMES", list(map(_times, waits))),
    ]
    room = width - sum(column.width + 2 for column in columns)
    columns.append(Column("BLOCKED IN", [_place(wait, room) for wait in waits], is_text=True))
    rest = found.waits[_MOST_PLACES:]
    rest_ns = sum(wait.time_ns for wait in rest)
    more = [f"  ({len(rest)} more: {format_duration(rest_ns)})"] if rest else []
    counted = format_counted(found.calls, "call")
    title = f"{counted} for files, which took {format_duration(found.time_ns)} in all:"
    return [title, *format_columns(columns), *more]


def _title_lines(call: ExplainedCall, origin_ns: int, width: int) -> list[str]:
    words = [call.op]
    if call.bytes:
        words.append(f"of {format_bytes(call.bytes)}")
    if call.file is not None:
        words.append(f"of {escape_for_terminal(call.file)}")
    if call.process is not None:
        words.append(f"by {escape_for_terminal(call.process)} ({call.pid})")
    took = _NOT_ENDED if call.latency_ns is None else format_duration(call.latency_ns)
    failed = f", {errno_name(call.errno)}" if call.errno else ""
    title = f"{' '.join(words)}: {took}{failed}, from {format_elapsed(call.time, origin_ns)} on"
    return wrap_units(title, width, subsequent_indent="  ", break_on_hyphens=False)


def _part_lines(parts: Sequence[Part]) -> list[str]:
    columns = [
        Column("", [f"  {part.relation}" for part in parts], is_text=True),
        Column("TIME", [format_duration(part.time_ns) for part in parts]),
        Column("SHARE", [format_percent(part.share) for part in parts]),
        Column("", [_ios(part) for part in parts], is_text=True),
    ]
    return format_columns(columns)


def _wait_lines(waits: Sequence[Wait] | None, width: int) -> list[str]:
    if waits is None:
        return []
    columns = [
        Column("      TIME", [format_duration(wait.time_ns) for wait in waits]),
        Column("SHARE", [format_percent(wait.share) for wait in waits]),
        Column("TIMES", list(map(_times, waits))),
        Column("BLOCKED IN", [_place(wait, width - 28) for wait in waits], is_text=True),
    ]
    return ["", *format_columns(columns)]


def _times(wait: Wait) -> str:
    return "-" if wait.times is None else format_count(wait.times)


def _place(wait: Wait, room: int) -> str:
    if wait.place in (FOR_A_CPU, ON_A_CPU, RAN_OR_LOST):
        return f"({wait.place})"
    return shorten_place(escape_for_terminal(wait.place or "an unknown function"), room)


def _ios(part: Part) -> str:
    if part.ios is None:
        return "no I/O: CPU, a lock, memory, another thread"
    return f"{format_counted(part.ios, 'I/O')}, {format_bytes(part.bytes)}"


def _step_lines(call: ExplainedCall, width: int) -> list[str]:
    steps = call.steps[:_MOST_STEPS]
    if not steps:
        return []
    columns = [
        Column("  AFTER", [_after(step.time - call.time) for step in steps]),
        Column("LATENCY", [format_duration(step.latency_ns) for step in steps]),
        Column("", [_bar(step, call) for step in steps], 4, is_text=True),
        Column("WHOSE", [step.relation for step in steps], is_text=True),
        Column("OP", [step.op for step in steps], is_text=True),
        Column("SIZE", [format_bytes(step.bytes) for step in steps]),
        Column("DEVICE", [cell_text(step.device) for step in steps], 1, is_text=True),
        Column("OFFSET", [cell_text(step.offset) for step in steps], 3),
        Column("PROCESS", [cell_text(step.process) for step in steps], 2, is_text=True),
    ]
    left_out = len(call.steps) - len(steps)
    more = [f"  ({format_count(left_out)} more)"] if left_out else []
    return ["", *format_columns(fit_columns(columns, width)), *more]


def _after(distance_ns: int) -> str:
    """How long after the begin of the call; before it with a minus."""
    return f"-{format_duration(-distance_ns)}" if distance_ns < 0 else format_duration(distance_ns)


def _bar(step: Step, call: ExplainedCall) -> str:
    """When the I/O was in flight, as a part of the call's time."""
    length = max(call.length_ns, 1)
    start = min(max(step.time - call.time, 0) * _BAR // length, _BAR - 1)
    stop_ns = length if step.latency_ns is None else step.time - call.time + step.latency_ns
    stop = min(-(-stop_ns * _BAR // length), _BAR)
    return "." * start + "#" * max(stop - start, 1) + "." * (_BAR - max(stop, start + 1))
