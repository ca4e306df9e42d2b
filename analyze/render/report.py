# SPDX-License-Identifier: GPL-2.0-only
"""Renders a report as text for people."""

from collections.abc import Callable, Sequence

from analyze.agreement import Agreement
from analyze.completeness import Completeness
from analyze.escape import escape_for_terminal
from analyze.metadata import DeviceEvents
from analyze.render.bio_times import bio_time_lines
from analyze.render.findings import findings_lines, findings_summary
from analyze.render.groups import cache_flush_lines, group_lines, histogram_lines
from analyze.render.listed_ios import failed_lines, in_flight_lines, slowest_lines
from analyze.render.load import load_lines
from analyze.render.table import Column, fit_columns, format_columns, wrap_units
from analyze.report import Report, Source
from analyze.stacks import Leg, Level, Stack
from analyze.summary import Summary
from analyze.units import (
    format_bytes,
    format_count,
    format_counted,
    format_duration,
    format_elapsed,
    format_percent,
    format_time,
)
from analyze.verdict import advise, cause_name, format_completeness

_MAX_SOURCES = 3
_MAX_GAPS = 3
_MAX_DEVICE_LINES = 12
_REFUSED = (
    "REFUSED: attempts for which no request was free and the caller would not wait, as io_uring's;"
    " each was retried, and only that counts as an I/O"
)
_LACKS_CGROUPS = "(all in one cgroup: those of this machine are of version 1, iorec knows 2)"
_UNCOMPARED = "(not compared with /proc/diskstats: that is read when a recording ends)"
# What diskstats counts as flushes are those of the devices; an fsync's is a write of 0 bytes there.
_OPS = {"write": "write, flush", "flush": "cache_flush"}
_VERDICTS = {True: "agrees", False: "DIFFERS", None: "not comparable"}


def render_text(
    report: Report, width: int, columns: Sequence[str] = (), *, only_findings: bool = False
) -> str:
    """The report in lines of at most `width` characters, if names allow it.

    Of what was asked for the columns of these names, or those for which there is room.
    """
    shown = [
        *_view(report, width, columns),
        in_flight_lines(report, width),
        failed_lines(report, width),
    ]
    if report.slowest is None and report.bio_times is None and report.loads is None:
        shown.append(findings_summary(report.findings, width))
    about = [
        _headline(report, width) + _source_lines(report) + level_lines(report.levels, width),
        device_lines(report.completeness, width),
        _selection_lines(report, width),
    ]
    if only_findings:
        shown = [findings_lines(report.findings or (), width)]
    sections = about if _matches_nothing(report) else [*about, *shown]
    return "\n\n".join("\n".join(lines) for lines in sections if lines) + "\n"


def _view(report: Report, width: int, columns: Sequence[str]) -> list[list[str]]:
    """What was asked for: I/Os, bios, devices, or else groups."""
    summary, is_too_low = report.summary, report.is_too_low
    if report.slowest is not None:
        return [slowest_lines(report, width, columns)]
    if report.bio_times is not None:
        return [bio_time_lines(report.bio_times, width, columns)]
    if report.loads is not None:
        return [load_lines(report.loads, width, columns, is_too_low=is_too_low)]
    return [
        group_lines(summary, report.origin, width, columns, is_too_low=is_too_low)
        + _wrapped(_LACKS_CGROUPS, width) * report.lacks_cgroups,
        cache_flush_lines(summary, width),
        *_histograms(summary),
        _stack_lines(report, width),
    ]


def _headline(report: Report, width: int) -> list[str]:
    """The verdict on all captures; of several, also on each of those that are not complete."""
    count = len(report.sources)
    if count == 1:
        return completeness_lines(report.completeness, report.origin, width)
    summed = f"{format_count(count)} captures summed up: "
    lines = completeness_lines(report.completeness, report.origin, width, summed)
    lacking = [source for source in report.sources if not source.is_complete]
    for source in lacking[:_MAX_SOURCES]:
        lines += _wrapped(f"{escape_for_terminal(str(source.path))}: {source.verdict}", width)
    left_out = len(lacking) - _MAX_SOURCES
    if left_out > 0:
        lines.append(f"and {format_counted(left_out, 'more incomplete capture')}")
    return lines


def completeness_lines(
    completeness: Completeness, origin_ns: int, width: int, of_what: str = ""
) -> list[str]:
    """The verdict, when I/Os were lost in seconds from `origin_ns`, and what that means."""
    lines = _wrapped(of_what + format_completeness(completeness), width)
    for gap in completeness.gaps[:_MAX_GAPS]:
        begin, end = format_elapsed(gap.start, origin_ns), format_elapsed(gap.stop, origin_ns)
        lost = f"{format_count(gap.lost)} lost from {begin} to {end}"
        lines.append(f"  {lost}: {cause_name(gap.cause)}")
    left_out = len(completeness.gaps) - _MAX_GAPS
    if left_out > 0:
        lines.append(f"  and more in {format_counted(left_out, 'other gap')}")
    for advice in advise(completeness):
        lines += _wrapped(f"hint: {advice}", width)
    return lines


def level_lines(levels: Sequence[Level], width: int) -> list[str]:
    """Which devices were recorded with what they stand on."""
    if not levels:
        return []
    pairs = [
        f"{escape_for_terminal(level.device)} on {escape_for_terminal(' and '.join(level.below))}"
        for level in levels
    ]
    return _wrapped(f"stacked: {', '.join(pairs)}: totals count an I/O on each level", width)


def device_lines(completeness: Completeness, width: int) -> list[str]:
    """Our counts beside those of diskstats; of many, those that differ and the busiest."""
    by_weight = sorted(
        completeness.devices, key=lambda row: (row.agrees is False, row.counted_ios), reverse=True
    )
    differing = sum(row.agrees is False for row in by_weight)
    kept = set(by_weight[: max(differing, _MAX_DEVICE_LINES)])
    rows = [row for row in completeness.devices if row in kept]
    left_out = len(completeness.devices) - len(rows)
    is_uncompared = completeness.is_recovered and all(row.agrees is None for row in rows)
    columns = [
        Column("DEVICE", [escape_for_terminal(row.device) for row in rows], is_text=True),
        Column("OP", [_OPS.get(row.op, row.op) for row in rows], is_text=True),
        Column("I/OS", [format_count(row.counted_ios) for row in rows]),
        *([] if is_uncompared else _diskstats_columns(rows)),
        *_event_columns(completeness, rows),
    ]
    lines = format_columns(fit_columns(columns, width)) if rows else []
    if rows and is_uncompared:
        lines.append(_UNCOMPARED)
    if left_out:
        lines.append(f"({left_out} more, which do not differ)")
    if any(event.refused for event in completeness.events):
        lines += _wrapped(_REFUSED, width)
    return lines


def _diskstats_columns(rows: Sequence[Agreement]) -> list[Column]:
    """Their counts, and whether ours agree."""
    return [
        Column("DISKSTATS", [_diskstats_range(row) for row in rows]),
        Column("", [_VERDICTS[row.agrees] for row in rows], is_text=True),
        *_size_columns(rows),
    ]


def _size_columns(rows: Sequence[Agreement]) -> list[Column]:
    """Both sides' bytes, exactly, where I/Os agree and bytes do not."""
    if not any(row.agrees is False and _ios_agree(row) for row in rows):
        return []
    return [
        Column("BYTES", [format_count(row.counted_bytes) for row in rows]),
        Column("BY DISKSTATS", [format_count(row.diskstats_bytes) for row in rows]),
    ]


def _ios_agree(row: Agreement) -> bool:
    return row.diskstats_ios - row.edge_ios <= row.counted_ios <= row.diskstats_ios


def _event_columns(completeness: Completeness, rows: Sequence[Agreement]) -> list[Column]:
    """What the block layer did with the I/Os, as far as anything of a kind happened."""
    events = {(event.device, event.op): event for event in completeness.events}
    found = [events.get((row.device, row.op)) for row in rows]
    kinds: tuple[tuple[str, Callable[[DeviceEvents], int]], ...] = (
        ("MERGES", lambda event: event.merges),
        ("SPLITS", lambda event: event.splits),
        ("REQUEUES", lambda event: event.requeues),
        ("REFUSED", lambda event: event.refused),
    )
    counted = [(title, [count(event) if event else 0 for event in found]) for title, count in kinds]
    return [
        Column(title, [format_count(count) for count in counts], 1)
        for title, counts in counted
        if any(counts)
    ]


def _diskstats_range(row: Agreement) -> str:
    if not row.edge_ios:
        return format_count(row.diskstats_ios)
    return f"{format_count(row.diskstats_ios - row.edge_ios)} to {format_count(row.diskstats_ios)}"


def _source_lines(report: Report) -> list[str]:
    """Where and when it was recorded."""
    lines = [
        f"{escape_for_terminal(str(source.path))}: {_system(source)},"
        f" {format_time(source.started_at)}, {format_duration(source.duration_ns)}"
        for source in report.sources[:_MAX_SOURCES]
    ]
    left_out = len(report.sources) - _MAX_SOURCES
    if left_out > 0:
        lines.append(f"and {format_counted(left_out, 'more capture')}")
    if report.repeats:
        names = ", ".join(escape_for_terminal(str(path)) for path in report.repeats[:_MAX_SOURCES])
        more = ", ..." * (len(report.repeats) > _MAX_SOURCES)
        lines.append(f"read once, though given again: {names}{more}")
    notes = report.completeness.note_count
    if notes:
        lines.append(f"{format_counted(notes, 'note')} of trouble while recording: see iorec info")
    return lines


def _selection_lines(report: Report, width: int) -> list[str]:
    """Which part of the capture is shown below."""
    if _matches_nothing(report):
        return [f"nothing matches: there is no I/O {report.selection}"]
    if shown := str(report.selection):
        return [f"below: {format_counted(report.summary.total.ios, 'I/O')} {shown}"]
    layers = list(report.completeness.recorded_by_layer)
    if len(layers) < 2 or report.bio_times is not None:
        return []
    *first, last = [layer for layer in layers if layer != "request"]
    bios = ", and bios of devices without requests" if "bio" in layers else ""
    others = f"{', '.join(first)} or {last}" if first else last
    return _wrapped(f"below: requests{bios}; the others: --layer {others}", width)


def _matches_nothing(report: Report) -> bool:
    """Whether it was narrowed to what there is not."""
    summary = report.summary
    is_empty = not summary.total.ios and summary.cache_flush_total is None
    return is_empty and bool(str(report.selection))


def _system(source: Source) -> str:
    host = escape_for_terminal(source.hostname)
    return f"{host}, Linux {escape_for_terminal(source.kernel)}" if source.kernel else host


def _histograms(summary: Summary) -> list[list[str]]:
    return [
        histogram_lines(group, kind)
        for kind, groups in (("", summary.groups), ("cache flushes: ", summary.cache_flushes))
        for group in groups
        if group.histogram is not None
    ]


def _stack_lines(report: Report, width: int) -> list[str]:
    """A line for each stacked device, and one for each device below it."""
    rows = [
        (stack.device, f"to {leg.device}" if leg else "", stack if leg is None else leg)
        for stack in report.stacks
        for leg in (None, *stack.legs)
    ]
    if not rows:
        return []
    columns = [
        Column("STACK", [escape_for_terminal(device) for device, _, _ in rows], is_text=True),
        Column("", [escape_for_terminal(leg) for _, leg, _ in rows], is_text=True),
        Column("BIOS", [format_count(row.ios) for _, _, row in rows]),
        Column("BYTES", [format_bytes(row.bytes) for _, _, row in rows]),
        Column("OF ITS BYTES", [_share_of_bytes(row) for _, _, row in rows]),
        Column("OF ITS TIME", [_share_of_time(row) for _, _, row in rows]),
        Column(
            "AVG",
            [format_duration(row.avg_ns) if isinstance(row, Leg) else "" for _, _, row in rows],
        ),
        Column("", [_slowest(row) for _, _, row in rows], is_text=True),
    ]
    return format_columns(fit_columns(columns, width))


def _share_of_bytes(row: Stack | Leg) -> str:
    return format_percent(row.bytes_share if isinstance(row, Leg) else row.amplification)


def _share_of_time(row: Stack | Leg) -> str:
    return format_percent(row.time_share if isinstance(row, Leg) else row.passed_on_share)


def _slowest(row: Stack | Leg) -> str:
    return "slowest" if isinstance(row, Leg) and row.is_slowest else ""


def _wrapped(text: str, width: int) -> list[str]:
    return wrap_units(text, width, subsequent_indent="  ")
