# SPDX-License-Identifier: GPL-2.0-only
"""Renders the verdict on a replay as text for people."""

from collections.abc import Sequence

from analyze.escape import escape_for_terminal
from analyze.fidelity import NOT_COMPARABLE, Fidelity, Percentiles, Rule
from analyze.render.table import Column, format_columns, wrap_units
from analyze.units import format_count, format_duration

_MARKS = {None: "-", "faithful": "ok"}


def render_fidelity(fidelity: Fidelity, width: int) -> str:
    """The word, the rules with their limits, and latencies if they may be compared."""
    measured = fidelity.measured
    head = (
        f"{fidelity.word}: {format_count(measured.matched)} of {format_count(measured.asked)} I/Os"
        f" of {fidelity.source} found in {fidelity.replayed}"
    )
    sections = [
        _wrapped(head, width),
        _rule_lines(fidelity.rules),
        _latency_lines(fidelity),
        [line for text in fidelity.caveats for line in _wrapped(f"note: {text}", width)],
        [line for text in fidelity.queue_differences for line in _wrapped(f"queue: {text}", width)],
    ]
    return "\n\n".join("\n".join(lines) for lines in sections if lines) + "\n"


def _rule_lines(rules: Sequence[Rule]) -> list[str]:
    return [f"  {_MARKS.get(rule.result, rule.result):<16}{rule.text}" for rule in rules]


def _latency_lines(fidelity: Fidelity) -> list[str]:
    measured = fidelity.measured
    if fidelity.word == NOT_COMPARABLE:
        return ["latencies are not compared: see what is not comparable above"]
    sides = [
        ("recorded", measured.latency_asked, measured.depth_asked),
        ("replayed", measured.latency_replayed, measured.depth_replayed),
    ]
    columns = [
        Column("LATENCY", [name for name, *_ in sides], is_text=True),
        *(
            Column(title, [_duration(found, field) for _, found, _ in sides])
            for title, field in (
                ("P50", "p50_ns"),
                ("P99", "p99_ns"),
                ("P99.9", "p999_ns"),
                ("MAX", "max_ns"),
            )
        ),
        Column("IN FLIGHT", ["-" if depth is None else f"{depth:.2f}" for *_, depth in sides]),
    ]
    return format_columns(columns)


def _duration(found: Percentiles | None, field: str) -> str:
    return format_duration(None if found is None else getattr(found, field))


def _wrapped(text: str, width: int) -> list[str]:
    return wrap_units(escape_for_terminal(text), width, subsequent_indent="  ")
