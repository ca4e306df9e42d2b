# SPDX-License-Identifier: GPL-2.0-only
"""Words the lines that record prints before it ends."""

import os
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

from analyze.errors import IorecError
from analyze.escape import escape_for_terminal, shell_word
from analyze.metadata import Filters
from analyze.units import format_bytes, format_counted, format_duration
from iorec.host.devices import disk_of_file
from iorec.kernel.layers import BLOCK_LAYER_NAMES
from iorec.record.filter_devices import resolve_device
from iorec.record.filters import filter_options
from iorec.record.settings import FlightPlan, Settings
from iorec.store.folder import leftover_spools


def say(text: str, *, is_quiet: bool) -> None:
    """Prints what is not asked for on stderr."""
    if not is_quiet:
        print(text, file=sys.stderr)


def format_start(settings: Settings, *, has_trace: bool) -> str:
    """What is recorded, where to and how to stop."""
    line = f"recording {_scope(settings.layers, settings.filters)}"
    if settings.output is not None:
        line += f" to {escape_for_terminal(str(settings.output.path))}"
    line += f"; stops {_end(settings)}"
    for reason in settings.lacking:
        line += f"\nnot recorded: {reason}"
    if has_trace:
        line += "\nthe kernel programs print to /sys/kernel/tracing/trace_pipe: cat it as root"
    elif settings.is_verbose:
        line += "\nwarning: this kernel lets no program print to trace_pipe"
    return line


def format_flight(settings: Settings, plan: FlightPlan) -> str:
    """What a flight recorder keeps, and when it writes that."""
    scope = _scope(settings.layers, settings.filters)
    window = format_duration(plan.window_ns)
    conditions = " or ".join(trigger.text for trigger in plan.triggers)
    when = f"when {conditions}, or at" if conditions else "at"
    return (
        f"recording {scope} in memory, the last {window}; writes a capture {when}"
        f" kill -USR1 {os.getpid()}; stops {_end(settings)}"
    )


def format_unmatched(filters: Filters, rows: int, filtered: int) -> str:
    """What to warn of if there were I/Os, but none that the filters let through; else nothing."""
    options = filter_options(filters)
    if rows or not filtered or not options:
        return ""
    return f"nothing matched {options}; {format_counted(filtered, 'I/O')} filtered out"


def format_leftovers(folder: Path) -> list[str]:
    """A warning of each spool that an interrupted recording left in the output's folder."""
    return [
        f"warning: {escape_for_terminal(str(part))} was left by an interrupted recording:"
        f" iorec recover {shell_word(part)}"
        for part in leftover_spools(folder)
    ]


def find_recorded_disk(folder: Path, wanted: Collection[str]) -> str | None:
    """The disk of the output's folder, if it is among those that are recorded: these, or all."""
    disk = disk_of_file(folder) if folder.is_dir() else None
    is_recorded = not wanted or not {disk, *_partitions(folder)}.isdisjoint(wanted)
    return disk if is_recorded else None


def format_own_writes(path: Path, disk: str, spool_bytes: int) -> str:
    """The warning that the recorder's own writing, whose disk was recorded, is in the capture."""
    return (
        f"warning: {escape_for_terminal(str(path))} is on {disk}, which was recorded: the"
        f" {format_bytes(spool_bytes)} that the recorder wrote there may be among the I/Os"
    )


def _partitions(folder: Path) -> list[str]:
    """The names by which -d would choose what holds the folder."""
    try:
        return resolve_device(str(folder.absolute()))
    except (IorecError, OSError):
        return []


def _end(settings: Settings) -> str:
    """When the recording stops."""
    end = "when the command ends" if settings.workload else "with Ctrl-C"
    if settings.limits.duration_ns is not None:
        end = f"after {format_duration(settings.limits.duration_ns)} or {end}"
    if settings.limits.count is not None:
        end = f"after {format_counted(settings.limits.count, 'I/O')} or {end}"
    return end


def _scope(layers: Sequence[str], filters: Filters) -> str:
    """E.g. `fsync system calls, read/write requests of sda by pid 12`."""
    kinds = []
    if "syscall" in layers:
        kinds.append(f"{'/'.join(filters.syscall)} system calls".lstrip())
    if "uring" in layers:
        kinds.append("io_uring operations")
    if "aio" in layers:
        kinds.append("asynchronous I/O")
    if "wait" in layers:
        kinds.append("their waits")
    block = " and ".join(f"{layer}s" for layer in layers if layer in BLOCK_LAYER_NAMES)
    if block:
        ops = "/".join(filters.op) if filters.op else "block"
        kinds.append(f"{ops} {block} of {_devices(filters) if filters.device else 'all devices'}")
    parts = [", ".join(kinds)]
    for word, values in (("pid", filters.pid), ("comm", filters.comm), ("cgroup", filters.cgroup)):
        if values:
            parts.append(f"by {word} {', '.join(map(str, values))}")
    if filters.min_latency_ns is not None:
        parts.append(f"that take {format_duration(filters.min_latency_ns)} or more")
    return " ".join(parts)


def _devices(filters: Filters) -> str:
    """As they were typed, and what they stand for unless that says it."""
    typed, meant = ", ".join(filters.device), ", ".join(filters.resolved_device)
    return typed if {*filters.device} == {*filters.resolved_device} else f"{typed} ({meant})"
