# SPDX-License-Identifier: GPL-2.0-only
"""Draws what happened during single calls: their waits, and the I/Os of disks, over time."""

from collections.abc import Sequence

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from analyze.explain import RELATIONS, ExplainedCall, Step, shorten_place
from analyze.plot.axes import set_title
from analyze.plot.theme import INK, OP_COLOURS, OTHERS_COLOUR, OWNER_COLOURS, drawable
from analyze.units import format_bytes, format_count, format_duration, format_short_duration

_MOST_STEPS = 12
_BAR = 0.7  # of a line's height
_LONGEST_NAME = 80
_CHARACTERS = 180  # beside each other, as far as the axis is long
_BLOCKED, _FOR_A_CPU = OTHERS_COLOUR, OWNER_COLOURS[5]
_COLOURS = dict(zip(RELATIONS, OP_COLOURS, strict=False))


def line_count(call: ExplainedCall) -> int:
    """How many lines of bars a call takes."""
    return 1 + bool(call.spans) + len(call.steps[:_MOST_STEPS])


def make_legend(calls: Sequence[ExplainedCall]) -> list[Artist]:
    relations = {step.relation for call in calls for step in call.steps}
    handles: list[Artist] = [
        Patch(color=_COLOURS[relation], label=f"{relation} I/O")
        for relation in RELATIONS
        if relation in relations
    ]
    if any(call.spans for call in calls):
        handles.append(Patch(color=_BLOCKED, label="blocked"))
        handles.append(Patch(color=_FOR_A_CPU, label="waiting for a CPU"))
    return handles


def draw_call(axes: Axes, call: ExplainedCall) -> None:
    """A line for the call, one for its waits and one for each of its first I/Os."""
    took = "has not ended" if call.latency_ns is None else format_duration(call.latency_ns)
    steps = call.steps[:_MOST_STEPS]
    more = len(call.steps) - len(steps)
    notes = (
        "" if call.file is None else drawable(call.file, _LONGEST_NAME),
        f"{format_count(more)} more I/Os not shown" if more else "",
    )
    who = f"{drawable(call.process, _LONGEST_NAME)} ({call.pid})"
    set_title(axes, f"{drawable(call.op)} by {who}: {took}", "  ·  ".join(filter(None, notes)))
    labels = [drawable(call.op)]
    axes.broken_barh([(0, call.length_ns)], (-_BAR / 2, _BAR), color=INK)
    if call.spans:
        _draw_spans(axes, call, len(labels))
        labels.append("its waits")
    for step in steps:
        start_ns = max(step.time - call.time, 0)
        stop_ns = call.length_ns
        if step.latency_ns is not None:
            stop_ns = min(step.time - call.time + step.latency_ns, stop_ns)
        place = (len(labels) - _BAR / 2, _BAR)
        axes.broken_barh([(start_ns, stop_ns - start_ns)], place, color=_COLOURS[step.relation])
        labels.append(_step_label(step))
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.set_xlim(0, max(call.length_ns, 1))
    axes.grid(axis="y", visible=False)
    axes.xaxis.set_major_locator(MaxNLocator(8, steps=(1, 2, 5, 10)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_short_duration(value)))
    axes.set_xlabel("time since the call began")


def _draw_spans(axes: Axes, call: ExplainedCall, line: int) -> None:
    place = (line - _BAR / 2, _BAR)
    blocked = [(span.time - call.time, span.blocked_ns) for span in call.spans]
    waiting = [
        (span.time - call.time + span.blocked_ns, span.length_ns - span.blocked_ns)
        for span in call.spans
    ]
    axes.broken_barh(blocked, place, color=_BLOCKED)
    axes.broken_barh(waiting, place, color=_FOR_A_CPU)
    for span, (start_ns, length_ns) in zip(call.spans, blocked, strict=True):
        room = int(_CHARACTERS * length_ns / max(call.length_ns, 1))
        name = drawable(shorten_place(span.place or "", room), _CHARACTERS)
        if len(name) < room:
            middle = start_ns + length_ns / 2
            axes.text(middle, line, name, ha="center", va="center", size=8, clip_on=True)


def _step_label(step: Step) -> str:
    size = f" {format_bytes(step.bytes)}" if step.bytes else ""
    return f"{drawable(step.op)}{size}, {drawable(step.device)}"
