# SPDX-License-Identifier: GPL-2.0-only
"""Renders what captures are as text for people."""

import shlex

from analyze.completeness import Completeness
from analyze.escape import escape_for_terminal
from analyze.info import CaptureInfo, Info
from analyze.metadata import Counts, Device, Filters, Metadata, Note, Recorder
from analyze.render.report import completeness_lines, device_lines, level_lines
from analyze.render.table import Column, fit_columns, format_columns, wrap_units
from analyze.units import format_bytes, format_count, format_duration, format_time

_LABEL_WIDTH = 13
_KINDS = {True: "rotating", False: "solid", None: "-"}


def render_info(info: Info, width: int) -> str:
    """A section for each file, in lines of at most `width` characters if names allow it."""
    sections = [_capture_text(capture, width) for capture in info.captures]
    if info.repeats:
        names = ", ".join(escape_for_terminal(str(path)) for path in info.repeats)
        sections.append(f"shown once, though given again: {names}")
    return "\n\n".join(sections) + "\n"


def _capture_text(capture: CaptureInfo, width: int) -> str:
    sections = [
        completeness_lines(capture.completeness, capture.metadata.started_at, width),
        _fact_lines(capture, width),
        _disk_lines(capture.metadata.devices, width) + level_lines(capture.levels, width),
        device_lines(capture.completeness, width),
    ]
    return "\n\n".join("\n".join(lines) for lines in sections if lines)


def _fact_lines(capture: CaptureInfo, width: int) -> list[str]:
    metadata = capture.metadata
    per_io = "" if capture.bytes_per_io is None else f", {capture.bytes_per_io:.1f} bytes per I/O"
    facts = {
        "file": f"{capture.path}, {format_bytes(capture.size_bytes)}{per_io}",
        "host": _host(metadata),
        "recorded": f"{format_time(metadata.started_at)}, {format_duration(capture.duration_ns)}",
        "layers": ", ".join(metadata.layers),
    }
    if metadata.replay is not None:
        made = metadata.replay
        onto = ", ".join(f"{target.source} on {target.target}" for target in made.targets)
        facts["replay"] = f"of {made.source}, {onto}: {made.verdict}"
    if metadata.trigger is not None:
        fired = metadata.trigger
        moment = format_time(fired.at)
        facts["trigger"] = escape_for_terminal(f"{fired.condition}, {moment}: {fired.cause}")
    if metadata.counts is not None:
        facts |= {
            "command": shlex.join(metadata.command),
            "workload": _workload(metadata),
            "filters": _filters(metadata.filters),
            "completions": _ledger(metadata.counts, is_recovered=not metadata.complete),
            "in flight": f"{format_count(metadata.counts.in_flight_at_start)} at the start,"
            f" {format_count(metadata.counts.in_flight_at_stop)} at the end",
            "checked": _checked(capture.completeness),
            "clock steps": _clock_steps(metadata),
        }
        if missed := metadata.counts.missed_events:
            facts["not seen"] = f"{format_count(missed)} merges, splits and requeues"
    if metadata.recorder is not None:
        facts["recorder"] = _recorder(metadata, metadata.recorder, capture.recorder_cpu_ns)
    notes = [("note", _note(note)) for note in metadata.notes]
    lines = [*facts.items(), *notes]
    return [line for label, text in lines for line in _labelled(label, text, width)]


def _host(metadata: Metadata) -> str:
    if not metadata.kernel:
        return metadata.hostname
    return f"{metadata.hostname}, Linux {metadata.kernel} {metadata.machine}, {metadata.cpus} CPUs"


def _checked(completeness: Completeness) -> str:
    rows = "the number of rows; their bytes are added up by iorec report"
    is_compared = any(device.agrees is not None for device in completeness.devices)
    return f"the account; its I/Os and bytes with /proc/diskstats; {rows}" if is_compared else rows


def _recorder(metadata: Metadata, recorder: Recorder, cpu_ns: int | None) -> str:
    return (
        f"iorec {metadata.iorec_version}, {format_duration(cpu_ns)} of CPU,"
        f" {format_bytes(recorder.peak_memory_bytes)} of memory,"
        f" {format_bytes(recorder.buffer_bytes)} of kernel buffer"
        + _of_kernel(recorder.kernel_memory_bytes)
    )


def _of_kernel(memory_bytes: int | None) -> str:
    return "" if memory_bytes is None else f" ({format_bytes(memory_bytes)} with all maps)"


def _note(note: Note) -> str:
    """What went wrong, how often and when."""
    if note.count == 1:
        return f"{note.what}: {note.message}, at {format_time(note.first)}"
    times = f"{format_count(note.count)} times from {format_time(note.first)}"
    return f"{note.what}: {note.message}, {times} to {format_time(note.last)}"


def _labelled(label: str, text: str, width: int) -> list[str]:
    return wrap_units(
        escape_for_terminal(text),
        width,
        initial_indent=f"{label:<{_LABEL_WIDTH}}",
        subsequent_indent=" " * _LABEL_WIDTH,
        break_on_hyphens=False,
    )


def _workload(metadata: Metadata) -> str:
    if metadata.workload is None:
        return "none, the whole machine"
    status = metadata.workload.exit_status
    end = "still running at the end" if status is None else f"exit status {status}"
    return f"{shlex.join(metadata.workload.argv)} ({end})"


def _filters(filters: Filters) -> str:
    is_resolved = set(filters.resolved_device) != set(filters.device)
    named = {
        "device": filters.device,
        "which is": filters.resolved_device if is_resolved else (),
        "pid": filters.pid,
        "comm": filters.comm,
        "cgroup": filters.cgroup,
        "op": filters.op,
        "syscall": filters.syscall,
    }
    parts = [f"{name} {', '.join(map(str, values))}" for name, values in named.items() if values]
    if filters.min_latency_ns is not None:
        parts.append(f"latency of {format_duration(filters.min_latency_ns)} or more")
    parts.append(f"{'with' if filters.include_self else 'without'} the recorder's own I/O")
    return "; ".join(parts)


def _ledger(counts: Counts, *, is_recovered: bool) -> str:
    """Every completion; of a recovered capture also what was on its way to the spool."""
    rest = "not yet written" if is_recovered else "unaccounted for"
    parts = {
        "recorded": counts.recorded,
        "filtered out": counts.filtered,
        "began before": counts.began_before,
        "parts of others": counts.continuations,
        "refused": counts.refused,
        "lost": counts.lost_completions,
        rest: counts.unaccounted,
    }
    text = " + ".join(
        f"{format_count(count)} {name}"
        for name, count in parts.items()
        if count or name not in ("refused", "lost", rest)
    )
    missed = counts.lost.get("missed_completion", 0)
    unseen = f"; besides, {format_count(missed)} that were not seen" * bool(missed)
    return f"{format_count(counts.completions)} = {text}{unseen}"


def _clock_steps(metadata: Metadata) -> str:
    steps = [
        f"{format_duration(step.step_ns)} at {format_time(step.time)}"
        for step in (metadata.clock.steps if metadata.clock else ())
    ]
    return ", ".join(steps) or "none"


def _disk_lines(all_devices: tuple[Device, ...], width: int) -> list[str]:
    """A line for each disk; loop devices without a file have no size."""
    devices = [device for device in all_devices if device.size_bytes]
    if not devices:
        return []
    columns = [
        _column("DISK", [device.name for device in devices]),
        _column("NUMBER", [f"{device.major}:{device.minor}" for device in devices], 3),
        _column("SIZE", [format_bytes(device.size_bytes) for device in devices]),
        _column("BLOCK", [format_bytes(device.logical_block_size) for device in devices], 5),
        _column("KIND", [_KINDS[device.rotational] for device in devices], 4),
        _column("SCHEDULER", [device.scheduler or "-" for device in devices], 1),
        _column("REQUESTS", [format_count(device.nr_requests) for device in devices], 6),
        _column("STANDS ON", [" ".join(device.stands_on) or "-" for device in devices], 2),
        _column("PARTITIONS", [_partitions(device) for device in devices], 7),
        _column("MODEL", [device.model or "-" for device in devices], 8),
    ]
    return format_columns(fit_columns(columns, width))


def _partitions(device: Device) -> str:
    return " ".join(partition.name for partition in device.partitions) or "-"


def _column(title: str, texts: list[str], rank: int = 0) -> Column:
    return Column(title, [escape_for_terminal(text) for text in texts], rank, is_text=True)
